"""Transports set sessions up with guests and yield the descriptors that an engine serves."""
