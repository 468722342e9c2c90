"""Packet blocks as the engines write them, looked at once more: counted, and cut.

Source: draft-ietf-opsawg-pcapng 4.3.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_PACKET = 6
# Type, length, interface, time (high, low), bytes kept, bytes of the frame.
_HEAD = struct.Struct("<7I")
_LENGTH = struct.Struct("<I")


class Packet(NamedTuple):
    """One Enhanced Packet Block.

    Attributes:
        interface: Its place among the interfaces.
        at_ns: Nanoseconds since 1970.
        length: Bytes of the whole frame.
        data: Those of its bytes that are kept.
        options: What says the rest, as it stands.
    """

    interface: int
    at_ns: int
    length: int
    data: bytes
    options: bytes


def packets(blocks: bytes) -> Iterator[Packet]:
    """Return packet blocks one by one."""
    at = 0
    while at < len(blocks):
        _, size, interface, high, low, kept, length = _HEAD.unpack_from(blocks, at)
        data = at + _HEAD.size
        options = data + (kept + 3 & ~3)
        end = at + size
        yield Packet(
            interface,
            high << 32 | low,
            length,
            blocks[data : data + kept],
            blocks[options : end - _LENGTH.size],
        )
        at = end


def serialize(packet: Packet) -> bytes:
    """Return the block of a packet, which keeps no more than ``data``."""
    at_ns, data = packet.at_ns, packet.data
    body = data + bytes(-len(data) % 4) + packet.options
    size = _HEAD.size + len(body) + _LENGTH.size
    head = _HEAD.pack(
        _PACKET, size, packet.interface, at_ns >> 32, at_ns & 0xFFFF_FFFF, len(data), packet.length
    )
    return head + body + _LENGTH.pack(size)


def count_packets(blocks: bytes | memoryview) -> Counter[int]:
    """Return how many packet blocks there are of each interface, among blocks of any type."""
    found: Counter[int] = Counter()
    words = _words(blocks)
    at, end = 0, len(words)
    while at < end:
        if words[at] == _PACKET:
            found[words[at + 2]] += 1
        at += words[at + 1] >> 2
    return found


def whole_blocks(blocks: bytes | memoryview, size: int) -> int:
    """Return how many of the first ``size`` bytes are whole blocks."""
    words = _words(blocks)
    at = 0
    while at < len(words):
        after = at + (words[at + 1] >> 2)
        if after * 4 > size:
            break
        at = after
    return at * 4


def _words(blocks: bytes | memoryview) -> memoryview:
    # Blocks are little-endian, as is every machine that runs guests.
    return memoryview(blocks).cast("I")
