"""Who talks most: counted from the newest frames that a flight recorder holds.

Only what guests have sent counts, dropped frames included: a frame is counted once, however many ports
it goes out of.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from umlab.errors import RemoteProtocolError, TruncatedMessage
from umlab.wire.ethernet import MAC_SIZE, format_mac
from umlab.wire.pcapng import INBOUND

#: Frames that are counted at most,
MAX_FRAMES = 20_000
#: and blocks that are looked at for them: a flood has many for each frame.
MAX_BLOCKS = 60_000

_PACKET = 6
_FLAGS, _DIRECTION = 2, 3
#: Type, length, interface, time (high, low), bytes kept, bytes of the frame.
_PACKET_HEAD = struct.Struct("<IIIIIII")
_OPTION = struct.Struct("<HH")
_LENGTH = struct.Struct("<I")
_ADDRESSES = 2 * MAC_SIZE


class Sent(NamedTuple):
    """A frame that a guest has sent.

    Attributes:
        at_ns: Nanoseconds since 1970.
        addresses: Destination and source, 12 bytes.
        length: Bytes of the whole frame.
    """

    at_ns: int
    addresses: bytes
    length: int


@dataclass(frozen=True, slots=True)
class Talker:
    """A station and what it has sent.

    Attributes:
        source: Its address, such as ``02:00:00:00:00:01``.
        frames: How many.
        bytes: Of all of them.
    """

    source: str
    frames: int
    bytes: int


@dataclass(frozen=True, slots=True)
class TalkerPair:
    """What a station has sent to an address, which may be a group's.

    Attributes:
        source: Its address, such as ``02:00:00:00:00:01``.
        destination: Whom it was for.
        frames: How many.
        bytes: Of all of them.
    """

    source: str
    destination: str
    frames: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Talkers:
    """Those who have sent the most bytes, the most first.

    Attributes:
        seconds: How far back the count goes: less than was asked for where so much was sent that the
            recorder, or the count, ends before.
        frames: How many were counted,
        bytes: and the bytes of all of them.
        sources: By source.
        pairs: By source and destination.
    """

    seconds: float
    frames: int
    bytes: int
    sources: tuple[Talker, ...]
    pairs: tuple[TalkerPair, ...]


def top_talkers(blocks: bytes, capacity: int, now_ns: int, seconds: float, count: int) -> Talkers:
    """Return who has sent most.

    Args:
        blocks: Enhanced Packet Blocks, oldest first, as ``umlab.wire.pcapng.serialize_packet`` writes them.
        capacity: Bytes of the memory that they are from: while less than half of it is used, nothing older
            has been there.
        now_ns: Nanoseconds since 1970.
        seconds: How far to look back.
        count: How many to return of each kind at most.

    Raises:
        RemoteProtocolError: These are no such blocks.
    """
    since_ns = now_ns - int(seconds * 1e9)
    pairs: dict[bytes, list[int]] = {}
    frames = 0
    oldest_ns = now_ns
    is_whole = len(blocks) < capacity // 2
    for sent in newest_sent(blocks):
        if sent.at_ns < since_ns:
            is_whole = True
            break
        oldest_ns = sent.at_ns
        counts = pairs.setdefault(sent.addresses, [0, 0])
        counts[0] += 1
        counts[1] += sent.length
        frames += 1
        if frames == MAX_FRAMES:
            is_whole = False
            break
    sources: dict[bytes, list[int]] = {}
    for addresses, (number, size) in pairs.items():
        counts = sources.setdefault(addresses[MAC_SIZE:], [0, 0])
        counts[0] += number
        counts[1] += size
    return Talkers(
        seconds=seconds if is_whole else max(0.0, (now_ns - oldest_ns) / 1e9),
        frames=frames,
        bytes=sum(size for _, size in pairs.values()),
        sources=tuple(Talker(format_mac(mac), *counts) for mac, counts in _most(sources, count)),
        pairs=tuple(
            TalkerPair(format_mac(addresses[MAC_SIZE:]), format_mac(addresses[:MAC_SIZE]), *counts)
            for addresses, counts in _most(pairs, count)
        ),
    )


def newest_sent(blocks: bytes) -> Iterator[Sent]:
    """Return what guests have sent, newest first, from ``MAX_BLOCKS`` blocks at most.

    Frames too short for two addresses are left out.

    Raises:
        RemoteProtocolError: What comes next is no Enhanced Packet Block.
    """
    end = len(blocks)
    for _ in range(MAX_BLOCKS):
        if not end:
            return
        if end < _PACKET_HEAD.size + _LENGTH.size:
            raise TruncatedMessage(_PACKET_HEAD.size + _LENGTH.size, end)
        # A block ends with its length, so that it can be found from there.
        (size,) = _LENGTH.unpack_from(blocks, end - _LENGTH.size)
        start = end - size
        if start < 0 or size % 4 or size < _PACKET_HEAD.size + _LENGTH.size:
            raise RemoteProtocolError(f"a block of {size} bytes where {end} are left")
        kind, head_size, _, high, low, kept, length = _PACKET_HEAD.unpack_from(blocks, start)
        options = start + _PACKET_HEAD.size + (kept + 3 & ~3)
        if kind != _PACKET or head_size != size or options > end - _LENGTH.size:
            raise RemoteProtocolError(f"a block of type {kind} that is no whole packet")
        if kept >= _ADDRESSES and _direction(blocks, options, end - _LENGTH.size) == INBOUND:
            data = start + _PACKET_HEAD.size
            yield Sent(high << 32 | low, blocks[data : data + _ADDRESSES], length)
        end = start


def _direction(blocks: bytes, start: int, end: int) -> int:
    """Return which way a frame went, as its options say, 0 where they do not.

    Args:
        blocks: The blocks.
        start: Where the options begin, and
        end: where they end.
    """
    while start + _OPTION.size <= end:
        code, size = _OPTION.unpack_from(blocks, start)
        start += _OPTION.size
        if code == _FLAGS and size == _LENGTH.size and start + size <= end:
            return int(_LENGTH.unpack_from(blocks, start)[0]) & _DIRECTION
        start += size + 3 & ~3
    return 0


def _most(counts: dict[bytes, list[int]], count: int) -> list[tuple[bytes, list[int]]]:
    """Return those with the most bytes; of equals those with the lower address first."""
    return sorted(counts.items(), key=lambda item: (-item[1][1], item[0]))[:count]
