"""Blocks of pcapng say what they were given, and follow each other without a gap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from support.pcapng_blocks import Packet, read_blocks, read_packets
from umlab.wire.pcapng import (
    INBOUND,
    OUTBOUND,
    block_length,
    serialize_interface,
    serialize_packet,
    serialize_section,
    serialize_statistics,
)

words = st.integers(0, (1 << 32) - 1)
longs = st.integers(0, (1 << 64) - 1)
# Whatever a guest calls itself: surrogates too.
texts = st.text(st.characters(), max_size=40)
packets = st.builds(
    Packet,
    words,
    longs,
    st.binary(max_size=80),
    words,
    st.sampled_from([INBOUND, OUTBOUND]),
    st.sampled_from(["", "drop: tail", "drop: same_port"]),
    longs,
)


@given(st.lists(packets, max_size=6))
def test_packets_are_read_back(written: list[Packet]) -> None:
    blocks = [
        serialize_packet(
            each.interface,
            each.at_ns,
            each.data,
            each.length,
            each.direction,
            each.comment.removeprefix("drop: "),
            each.lost,
        )
        for each in written
    ]
    file = b"".join(blocks)
    assert read_packets(file) == written
    at = 0
    for block in blocks:
        assert block_length(file, at) == len(block)
        at += len(block)


@given(texts, texts, texts, words)
def test_section_and_interface_have_whatever_text_they_are_given(
    name: str, description: str, capture_filter: str, snap_length: int
) -> None:
    file = serialize_section(name, description) + serialize_interface(
        name, description, snap_length, capture_filter
    )
    section, interface = (dict(block.options) for block in read_blocks(file))
    as_written = {text: text.encode(errors="replace") for text in (name, description, capture_filter)}
    assert section[4] == interface[2] == as_written[name]
    assert section.get(3, b"") == interface.get(3, b"") == as_written[description]
    assert interface.get(11, b"\0") == b"\0" + as_written[capture_filter]


@given(words, longs, longs, st.tuples(longs, longs, longs).map(sorted))
def test_statistics_count(interface: int, at_ns: int, started_ns: int, counts: list[int]) -> None:
    lost, accepted, received = counts
    (block,) = read_blocks(serialize_statistics(interface, at_ns, started_ns, received, accepted, lost))
    said = {code: int.from_bytes(value, "little") for code, value in block.options if code >= 4}
    assert said == {4: received, 5: lost, 6: accepted, 8: accepted - lost}
