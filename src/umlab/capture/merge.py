"""Captures of several switches as one: one section, whose interfaces are numbered anew."""

from __future__ import annotations

import struct

from umlab.errors import RemoteProtocolError

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_HEAD = struct.Struct("<II")
_NUMBER = struct.Struct("<I")
#: What every block has around its body.
_MIN_BLOCK = 12


class Merge:
    """Puts blocks of several captures into one stream, in the order in which they come."""

    def __init__(self) -> None:
        self._begun = False
        self._interfaces = 0
        #: By capture: the new number of each of its interfaces.
        self._numbers: dict[int, list[int]] = {}

    def add(self, capture: int, blocks: bytes) -> bytes:
        """Return blocks of a capture as they are to be written.

        Args:
            capture: Which one, any number.
            blocks: Whole blocks as ``umlab.wire.pcapng`` writes them; a capture begins with its section.

        Raises:
            RemoteProtocolError: These are no such blocks.
        """
        numbers = self._numbers.setdefault(capture, [])
        merged = bytearray()
        at = 0
        while at < len(blocks):
            if at + _MIN_BLOCK > len(blocks):
                raise RemoteProtocolError(f"a block of {len(blocks) - at} bytes")
            kind, size = _HEAD.unpack_from(blocks, at)
            if size < _MIN_BLOCK or size % 4 or at + size > len(blocks):
                raise RemoteProtocolError(f"a block of {size} bytes where {len(blocks) - at} are left")
            if kind != _SECTION or not self._begun:
                begin = len(merged)
                merged += blocks[at : at + size]
                if kind in (_PACKET, _STATISTICS):
                    _renumber(merged, begin, numbers)
            if kind == _SECTION:
                self._begun = True
            elif kind == _INTERFACE:
                numbers.append(self._interfaces)
                self._interfaces += 1
            at += size
        return bytes(merged)


def _renumber(merged: bytearray, begin: int, numbers: list[int]) -> None:
    """Put its new number into a block, whose body begins with the old one."""
    (number,) = _NUMBER.unpack_from(merged, begin + _HEAD.size)
    if number >= len(numbers):
        raise RemoteProtocolError(f"a block of interface {number}, which is not described")
    _NUMBER.pack_into(merged, begin + _HEAD.size, numbers[number])
