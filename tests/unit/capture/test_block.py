"""Blocks that the engines wrote, counted and cut."""

from __future__ import annotations

from support.pcapng_blocks import read_packets
from umlab.capture.block import count_packets, packets, serialize, whole_blocks
from umlab.wire.pcapng import (
    INBOUND,
    OUTBOUND,
    serialize_interface,
    serialize_packet,
    serialize_section,
    serialize_statistics,
)

AT = 1_800_000_000_123_456_789
PLAIN = serialize_packet(0, AT, b"a" * 14, 14, INBOUND)
DROPPED = serialize_packet(3, AT + 1, b"b" * 61, 1500, OUTBOUND, "tail", 7)
HEAD = (
    serialize_section("x") + serialize_interface("lan:1", "", 65_535) + serialize_statistics(0, 2, 1, 3, 3, 0)
)


def test_packets_are_found_and_become_what_they_were() -> None:
    found = list(packets(PLAIN + DROPPED))
    assert [(each.interface, each.at_ns, each.length, each.data) for each in found] == [
        (0, AT, 14, b"a" * 14),
        (3, AT + 1, 1500, b"b" * 61),
    ]
    assert b"".join(map(serialize, found)) == PLAIN + DROPPED


def test_packet_is_cut_and_renumbered_and_keeps_what_it_says() -> None:
    (packet,) = packets(DROPPED)
    (cut,) = read_packets(serialize(packet._replace(interface=1, data=packet.data[:14])))
    (whole,) = read_packets(DROPPED)
    assert (cut.interface, cut.data, cut.length) == (1, b"b" * 14, 1500)
    assert (cut.at_ns, cut.direction, cut.comment, cut.lost) == (
        whole.at_ns,
        whole.direction,
        "drop: tail",
        7,
    )


def test_only_packets_are_counted() -> None:
    assert count_packets(HEAD + PLAIN + DROPPED + HEAD + DROPPED) == {0: 1, 3: 2}
    assert count_packets(b"") == {}


def test_whole_blocks_end_where_a_block_does() -> None:
    ends = [0, len(HEAD), len(HEAD) + len(PLAIN), len(HEAD) + len(PLAIN) + len(DROPPED)]
    data = HEAD + PLAIN + DROPPED
    assert whole_blocks(data, len(data)) == len(data)
    for end in ends[1:]:
        assert whole_blocks(data, end) == end
        assert whole_blocks(data, end - 1) < end
        assert whole_blocks(data, min(end + 1, len(data))) == end
