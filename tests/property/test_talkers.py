"""Talkers: every frame of a guest is counted once, and no bytes bring the walk over blocks out of step."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from umlab.capture.talkers import newest_sent, top_talkers
from umlab.errors import RemoteProtocolError
from umlab.wire.pcapng import INBOUND, OUTBOUND, serialize_packet

NOW = 1_800_000_000_000_000_000
FRAMES = st.lists(
    st.tuples(
        st.binary(max_size=40),
        st.sampled_from((INBOUND, OUTBOUND)),
        st.sampled_from(("", "vlan", "same_port")),
        st.integers(0, 2**40),
    )
)


@given(FRAMES)
def test_every_frame_of_a_guest_is_counted_once(frames: list[tuple[bytes, int, str, int]]) -> None:
    blocks = b"".join(
        serialize_packet(number, NOW, data, len(data), direction, drop, lost)
        for number, (data, direction, drop, lost) in enumerate(frames)
    )
    sent = [data for data, direction, _, _ in frames if direction == INBOUND and len(data) >= 12]
    assert [each.addresses for each in newest_sent(blocks)] == [data[:12] for data in reversed(sent)]
    found = top_talkers(blocks, len(blocks) + 1, NOW, 1, 1000)
    assert {(each.source, each.frames) for each in found.sources} == set(
        Counter(data[6:12].hex(":") for data in sent).items()
    )
    assert sum(each.bytes for each in found.pairs) == found.bytes == sum(map(len, sent))


@given(st.binary(max_size=200), st.integers(0, 200), st.binary(max_size=8))
def test_bytes_are_blocks_or_the_error_says_that_they_are_not(data: bytes, at: int, changed: bytes) -> None:
    whole = serialize_packet(0, NOW, data[:64], 64, INBOUND, "vlan", 3) * 2
    for blocks in (data, data + whole, whole[:at] + changed + whole[at + len(changed) :]):
        try:
            for sent in newest_sent(blocks):
                assert len(sent.addresses) == 12
        except RemoteProtocolError:
            continue
