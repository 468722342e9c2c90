"""Sets of VIDs are sets; and a frame has the tag that its port wants, whatever it came with."""

from __future__ import annotations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from umlab.switch.core import SwitchCore
from umlab.switch.counters import DropReason
from umlab.switch.model import PortConfig, SwitchConfig
from umlab.switch.tag import Tagging, tagging_of
from umlab.switch.vlan import CTAG, STAG, PortVlan, VidSet, put_tag, tag_of, vid_of, without_tag

VIDS = (1, 2, 10, 4094)
vid_sets = st.one_of(
    st.sets(st.integers(1, 4094), max_size=8), st.tuples(st.integers(1, 4094), st.integers(1, 90)).map(
        lambda pair: set(range(pair[0], min(pair[0] + pair[1], 4095)))
    )
)  # fmt: skip
addresses = st.binary(min_size=12, max_size=12)
tags = st.builds(
    lambda tpid, priority, vid: tpid.to_bytes(2, "big") + (priority << 12 | vid).to_bytes(2, "big"),
    st.sampled_from([CTAG, STAG]),
    st.integers(0, 15),
    st.sampled_from([0, *VIDS, 4095]),
)
frames = st.builds(
    lambda macs, in_front, rest: macs + b"".join(in_front) + rest,
    addresses,
    st.lists(tags, max_size=2),
    st.one_of(st.binary(min_size=2, max_size=30), st.just(b"\x08\0")),
)


@st.composite
def port_vlans(draw: st.DrawFn) -> PortVlan:
    with_tag = draw(st.sets(st.sampled_from(VIDS)))
    without = draw(st.sets(st.sampled_from(VIDS))) - with_tag
    assume(with_tag | without)
    pvid = draw(st.none() | st.sampled_from(sorted(with_tag | without)))
    tpid = draw(st.sampled_from([CTAG, STAG]))
    return PortVlan(pvid, VidSet.of(with_tag), VidSet.of(without), tpid)


@given(vid_sets, vid_sets)
def test_vids_are_a_set(one: set[int], other: set[int]) -> None:
    left, right = VidSet.of(one), VidSet.of(other)
    assert list(left) == sorted(one)
    assert (set(left | right), set(left & right), set(left - right)) == (
        one | other,
        one & other,
        one - other,
    )
    assert (len(left), bool(left)) == (len(one), bool(one))
    assert VidSet.parse(str(left)) == left
    assert all((vid in left) == (vid in one) for vid in range(4097))


@given(st.one_of(st.text(max_size=30), st.text(alphabet="0123456789,- ", max_size=30)))
def test_any_text_is_a_set_or_a_value_error(text: str) -> None:
    try:
        vids = VidSet.parse(text)
    except ValueError:
        return
    assert VidSet.parse(str(vids)) == vids
    assert all(1 <= vid <= 4094 for vid in vids)


@given(frames, st.sampled_from([CTAG, STAG]), st.integers(0, 0xFFFF))
def test_tag_is_found_where_it_was_put_and_taken_out_again(frame: bytes, tpid: int, tci: int) -> None:
    tagged = put_tag(frame, tpid, tci)
    assert tag_of(tagged, tpid) == tci
    assert without_tag(tagged) == frame


@settings(max_examples=300)
@given(frames, port_vlans(), port_vlans())
def test_frame_has_the_form_of_the_port_that_it_leaves_from(
    frame: bytes, ingress: PortVlan, egress: PortVlan
) -> None:
    tagging = tagging_of(ingress, frame)
    if isinstance(tagging, DropReason):
        return
    assert tagging.vid in ingress.members
    if tagging.vid not in egress.members:
        return
    bare = without_tag(frame) if tagging.tpid else frame
    form = tagging.form(frame, egress)
    if tagging.vid in egress.untagged:
        assert form == bare
        return
    tci = tag_of(form, egress.tpid)
    assert tci is not None
    assert vid_of(tci) == tagging.vid
    assert tci >> 12 == tagging.tci >> 12
    assert without_tag(form) == bare
    # A trunk port on the other side of the cable finds the same.
    assert tagging_of(egress, form) == Tagging(tagging.vid, egress.tpid, tci)


@settings(max_examples=300)
@given(
    st.dictionaries(st.integers(1, 4), port_vlans(), max_size=4),
    st.lists(st.tuples(st.integers(1, 4), st.one_of(frames, st.binary(max_size=20))), max_size=8),
)
def test_no_frame_leaves_its_vlan(ports: dict[int, PortVlan], sent: list[tuple[int, bytes]]) -> None:
    core = SwitchCore(SwitchConfig(ports={number: PortConfig(vlan) for number, vlan in ports.items()}))
    for _ in range(4):
        core.add_port(0)
    for now_ns, (ingress, frame) in enumerate(sent):
        verdict = core.receive(ingress, frame, now_ns)
        assert ingress not in verdict.egress
        vlans = [ports.get(number) for number in verdict.egress]
        if ingress not in ports:
            assert vlans == [None] * len(vlans)
            assert not verdict.changed
            continue
        tagging = tagging_of(ports[ingress], frame) if len(frame) >= 14 else DropReason.RUNT
        if isinstance(tagging, DropReason):
            assert (verdict.drop, verdict.egress) == (tagging, ())
            continue
        assert all(vlan is not None and tagging.vid in vlan.members for vlan in vlans)
        for entry in core.fdb(now_ns):
            vlan = ports.get(entry.port_no)
            assert entry.vid in vlan.members if vlan else entry.vid == 0
