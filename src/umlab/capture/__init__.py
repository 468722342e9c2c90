"""Captures of a switch's frames: filters, files, the thread that writes them, the flight recorder."""
