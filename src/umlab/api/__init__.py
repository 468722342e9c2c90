"""The HTTP server of a lab daemon, and where everything that a daemon is made of is put together."""
