"""What this machine lacks or blocks, and the fix for each."""
