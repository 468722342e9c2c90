"""Codecs: bytes to values and back. No sockets, clock, logging, asyncio, threads or randomness."""
