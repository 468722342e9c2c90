"""Who talks most: what guests have sent is counted, newest first, and nothing else."""

from __future__ import annotations

import pytest

from umlab.capture import talkers
from umlab.capture.talkers import Sent, Talker, TalkerPair, newest_sent, top_talkers
from umlab.errors import RemoteProtocolError
from umlab.wire.pcapng import INBOUND, OUTBOUND, serialize_packet, serialize_section

SECOND = 1_000_000_000
NOW = 1_800_000_000 * SECOND
CAPACITY = 1 << 24
A, B, ALL = b"\2\0\0\0\0\1", b"\2\0\0\0\0\2", b"\xff" * 6


def block(
    src: bytes, dst: bytes, size: int = 60, ago: float = 0, direction: int = INBOUND, drop: str = ""
) -> bytes:
    """Return a frame of a guest, sent some seconds ago and cut to 60 bytes."""
    at_ns = NOW - int(ago * SECOND)
    return serialize_packet(0, at_ns, (dst + src).ljust(min(size, 60), b"\0"), size, direction, drop, lost=1)


def test_stations_and_pairs_with_the_most_bytes_come_first() -> None:
    blocks = block(A, B, 100, 3) + block(A, ALL, 60, 2) + block(B, A, 1500, 1) + block(A, B, 100)
    found = top_talkers(blocks, CAPACITY, NOW, 10, 10)
    a, b, everybody = "02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff"
    assert found.sources == (Talker(b, 1, 1500), Talker(a, 3, 260))
    assert found.pairs == (
        TalkerPair(b, a, 1, 1500),
        TalkerPair(a, b, 2, 200),
        TalkerPair(a, everybody, 1, 60),
    )
    assert (found.seconds, found.frames, found.bytes) == (10, 4, 1760)
    assert top_talkers(blocks, CAPACITY, NOW, 10, 1).pairs == found.pairs[:1]


def test_what_the_switch_sends_does_not_count_and_what_it_drops_does() -> None:
    blocks = block(A, B) + block(A, B, direction=OUTBOUND) + block(A, B, drop="same_port")
    assert top_talkers(blocks, CAPACITY, NOW, 10, 10).frames == 2


def test_only_the_time_that_is_asked_for_counts() -> None:
    blocks = block(A, B, ago=2.5) + block(A, B, ago=1.5) + block(A, B, ago=0.5)
    found = top_talkers(blocks, CAPACITY, NOW, 2, 10)
    assert (found.frames, found.seconds) == (2, 2)


def test_a_memory_that_is_full_says_how_far_it_goes_back() -> None:
    blocks = block(A, B, ago=2.5) + block(A, B, ago=1.5)
    assert top_talkers(blocks, len(blocks), NOW, 10, 10).seconds == 2.5
    assert top_talkers(blocks, len(blocks), NOW, 2, 10).seconds == 2


def test_no_more_frames_than_may_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talkers, "MAX_FRAMES", 3)
    blocks = b"".join(block(A, B, ago=each / 10) for each in range(9, -1, -1))
    found = top_talkers(blocks, CAPACITY, NOW, 10, 10)
    assert (found.frames, found.seconds) == (3, 0.2)


def test_no_more_blocks_than_may_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talkers, "MAX_BLOCKS", 4)
    blocks = block(A, B) + block(A, B, direction=OUTBOUND) * 4
    assert list(newest_sent(blocks)) == []
    assert len(list(newest_sent(blocks[: -len(block(A, B))]))) == 1


def test_nobody_has_sent_anything() -> None:
    found = top_talkers(b"", CAPACITY, NOW, 10, 10)
    assert (found.frames, found.seconds, found.sources, found.pairs) == (0, 10, (), ())


def test_frame_too_short_for_addresses_is_nobodys() -> None:
    runt = serialize_packet(0, NOW, b"\0" * 11, 11, INBOUND, "runt")
    assert list(newest_sent(runt + block(A, B))) == [Sent(NOW, B + A, 60)]


@pytest.mark.parametrize(
    "blocks",
    [
        b"\0" * 4,
        block(A, B)[1:],
        block(A, B)[:-4] + b"\xff\xff\xff\x7f",
        block(A, B)[:-4] + b"\0\0\0\0",
        serialize_section("somebody else's file, with a long name"),
        # More kept bytes than the block has.
        block(A, B)[:20] + b"\xff\xff\0\0" + block(A, B)[24:],
    ],
)
def test_what_is_no_packet_is_an_error(blocks: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(newest_sent(blocks))
