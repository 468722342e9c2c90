"""Kernels: what they can do, where they are kept, how they are built, their modules."""
