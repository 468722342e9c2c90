"""Drop-in replacements of the old C tools."""
