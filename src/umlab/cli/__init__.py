"""The ``umlab`` command line."""
