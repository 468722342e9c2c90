"""Guests: kernel command line, root file systems, run directory, process."""
