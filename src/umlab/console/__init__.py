"""Terminals of guests, shared by any number of viewers."""
