"""Labs: segments and guests from a file."""
