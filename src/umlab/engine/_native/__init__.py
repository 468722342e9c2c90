"""The native engine: one thread without the GIL; the same behaviour as the Python engine, in less time."""
