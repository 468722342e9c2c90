"""pcapng read back, by the draft alone: blocks, and the frames in them.

Strict: what breaks a rule of the format fails the test that reads it.

Source: draft-ietf-opsawg-pcapng; little-endian sections only.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

SECTION, INTERFACE, STATISTICS, PACKET = 0x0A0D0D0A, 1, 5, 6
#: Bytes in front of the options; those of a packet's data come on top.
_FIXED = {SECTION: 16, INTERFACE: 8, STATISTICS: 12, PACKET: 20}
_COMMENT, _FLAGS, _DROP_COUNT = 1, 2, 4


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        kind: Its type.
        body: What lies in front of the options, a packet's data with its padding included.
        options: Code and value of each, in their order.
    """

    kind: int
    body: bytes
    options: list[tuple[int, bytes]]


@dataclass(frozen=True)
class Packet:
    """What an Enhanced Packet Block says.

    Attributes:
        interface: Number of its interface.
        at_ns: Nanoseconds since 1970, on an interface with times in nanoseconds.
        data: What is kept of the frame.
        length: Bytes of the whole frame.
        direction: 1 inbound, 2 outbound, 0 not said.
        comment: Nothing for none.
        lost: The drop count, 0 for none.
    """

    interface: int
    at_ns: int
    data: bytes
    length: int
    direction: int = 0
    comment: str = ""
    lost: int = 0


def read_blocks(data: bytes) -> list[Block]:
    """Return the blocks; fails unless they fill the data."""
    return list(_blocks(data))


def read_packets(data: bytes) -> list[Packet]:
    """Return the frames in the blocks, of which others are left out."""
    return [_packet(block) for block in _blocks(data) if block.kind == PACKET]


def _blocks(data: bytes) -> Iterator[Block]:
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from("<II", data, at)
        assert size % 4 == 0, size
        assert size >= 12, size
        assert at + size <= len(data), (at, size, len(data))
        assert struct.unpack_from("<I", data, at + size - 4) == (size,)
        inner = data[at + 8 : at + size - 4]
        fixed = _FIXED[kind]
        if kind == PACKET:
            fixed += -(-struct.unpack_from("<I", inner, 12)[0] // 4) * 4
        yield Block(kind, inner[:fixed], list(_options(inner[fixed:])))
        at += size


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        code, length = struct.unpack_from("<HH", data, at)
        padded = -(-length // 4) * 4
        assert at + 4 + padded <= len(data)
        if code == 0:
            assert (length, at + 4) == (0, len(data)), "the end of the options is their end"
            return
        assert not any(data[at + 4 + length : at + 4 + padded]), "padding is 0"
        yield code, data[at + 4 : at + 4 + length]
        at += 4 + padded
    assert not data, "options without their end"


def _packet(block: Block) -> Packet:
    interface, high, low, kept, length = struct.unpack_from("<IIIII", block.body)
    options = dict(block.options)
    assert len(options) == len(block.options), "an option twice"
    assert options.keys() <= {_COMMENT, _FLAGS, _DROP_COUNT}
    assert not any(block.body[20 + kept :]), "padding is 0"
    return Packet(
        interface,
        high << 32 | low,
        block.body[20 : 20 + kept],
        length,
        struct.unpack("<I", options.get(_FLAGS, bytes(4)))[0],
        options.get(_COMMENT, b"").decode(),
        struct.unpack("<Q", options.get(_DROP_COUNT, bytes(8)))[0],
    )
