"""Captures as one: every packet keeps its interface, and no bytes bring the walk over blocks out of step."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.capture.block import packets
from umlab.capture.merge import Merge
from umlab.errors import RemoteProtocolError
from umlab.wire.pcapng import INBOUND, serialize_interface, serialize_packet, serialize_section

SECTION = serialize_section("umlab")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=40))
def test_every_packet_keeps_its_interface(sent: list[tuple[int, int]]) -> None:
    merge, interfaces, begun = Merge(), list[tuple[int, int]](), dict[int, int]()
    written = b""
    for number, (capture, port) in enumerate(sent):
        # A capture begins with its section, and describes the ports up to one that is new.
        blocks = b"" if capture in begun else SECTION
        for new in range(begun.get(capture, 0), port + 1):
            blocks += serialize_interface(f"{capture}:{new}", "", 65_535)
            interfaces.append((capture, new))
        begun[capture] = max(begun.get(capture, 0), port + 1)
        merged = merge.add(capture, blocks + serialize_packet(port, number, b"\0" * 60, 60, INBOUND))
        size = len(serialize_packet(port, number, b"\0" * 60, 60, INBOUND))
        (packet,) = packets(merged[-size:])
        assert interfaces[packet.interface] == (capture, port)
        written += merged
    assert written.count(SECTION) == bool(sent)
    assert written.startswith(SECTION) or not sent


@given(st.binary(max_size=200), st.integers(0, 200), st.binary(max_size=8))
def test_bytes_are_blocks_or_the_error_says_that_they_are_not(data: bytes, at: int, changed: bytes) -> None:
    whole = (
        SECTION + serialize_interface("lan:1", "", 65_535) + serialize_packet(0, 7, b"\0" * 60, 60, INBOUND)
    )
    for blocks in (data, whole + data, whole[:at] + changed + whole[at + len(changed) :]):
        try:
            assert len(Merge().add(0, blocks)) <= len(blocks)
        except RemoteProtocolError:
            continue
