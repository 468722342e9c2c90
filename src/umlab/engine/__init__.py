"""Engines move frames between the descriptors of ports, as ``umlab.switch`` decides."""
