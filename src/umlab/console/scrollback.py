"""The last output of a terminal, in memory that outlives the process that writes it."""

from __future__ import annotations

import mmap
import os
import struct

#: Bytes that are kept.
SIZE = 64 * 1024
#: Bytes that were ever written, u64; then the ring.
_HEAD = struct.Struct("=Q")


class Scrollback:
    """A ring in a file in memory; whoever holds a duplicate of its descriptor finds the same bytes there.

    Args:
        fd: The descriptor of an earlier one, which belongs to this object from now on; a new one is made
            unless it is given.

    Attributes:
        fd: The descriptor.

    Raises:
        OSError, ValueError: That is none, and closed, or there is no memory.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("umlab-scrollback", os.MFD_CLOEXEC) if fd is None else fd
        try:
            if fd is None:
                os.ftruncate(self.fd, _HEAD.size + SIZE)
            self._map = mmap.mmap(self.fd, _HEAD.size + SIZE)
        except BaseException:
            os.close(self.fd)
            raise

    def write(self, data: bytes) -> None:
        """Add output."""
        (written,) = _HEAD.unpack_from(self._map)
        total = written + len(data)
        data = data[-SIZE:]
        start = (total - len(data)) % SIZE
        first = data[: SIZE - start]
        self._map[_HEAD.size + start : _HEAD.size + start + len(first)] = first
        self._map[_HEAD.size : _HEAD.size + len(data) - len(first)] = data[len(first) :]
        # Last: a process that dies before has written nothing.
        _HEAD.pack_into(self._map, 0, total)

    def read(self) -> bytes:
        """Return the last output, 64 KiB at most."""
        (written,) = _HEAD.unpack_from(self._map)
        ring = self._map[_HEAD.size :]
        if written <= SIZE:
            return ring[:written]
        start = written % SIZE
        return ring[start:] + ring[:start]

    def close(self) -> None:
        """Let go of the memory."""
        self._map.close()
        os.close(self.fd)
