"""LLDP: what was written is read, and whatever else comes is read safely or refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.wire.lldp import (
    Capabilities,
    Identifier,
    Lldpdu,
    ManagementAddress,
    VlanName,
    address_text,
    chassis_text,
    parse_frame,
    parse_lldpdu,
    port_text,
    serialize_frame,
    serialize_lldpdu,
)

BYTES, WORDS = st.integers(0, 255), st.integers(0, 65_535)
IDENTIFIERS = st.builds(Identifier, BYTES, st.binary(min_size=1, max_size=255))
TEXTS = st.binary(max_size=255)
ADDRESSES = st.builds(
    ManagementAddress,
    BYTES,
    st.binary(min_size=1, max_size=31),
    BYTES,
    st.integers(0, 2**32 - 1),
    st.binary(max_size=128),
)
PDUS = st.builds(
    Lldpdu,
    IDENTIFIERS,
    IDENTIFIERS,
    WORDS,
    TEXTS,
    TEXTS,
    TEXTS,
    st.one_of(st.none(), st.builds(Capabilities, WORDS, WORDS)),
    st.lists(ADDRESSES, max_size=3).map(tuple),
    st.one_of(st.none(), WORDS),
    st.lists(st.builds(VlanName, WORDS, st.binary(min_size=1, max_size=32)), max_size=3).map(tuple),
)
TLVS = st.tuples(
    st.one_of(st.integers(0, 9), st.just(127), st.integers(0, 127)),
    st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=20).map(b"\0\x80\xc2\x01".__add__),
        st.binary(max_size=20).map(b"\0\x80\xc2\x03".__add__),
    ),
).map(lambda tlv: (tlv[0] << 9 | len(tlv[1])).to_bytes(2, "big") + tlv[1])
LEAST = serialize_lldpdu(Lldpdu(Identifier(7, b"c"), Identifier(7, b"p"), 1))[:-2]


@given(PDUS, st.binary(max_size=20), st.binary(min_size=6, max_size=6))
def test_what_was_written_is_read_with_padding_behind_it(pdu: Lldpdu, padding: bytes, mac: bytes) -> None:
    data = serialize_lldpdu(pdu)
    found = parse_lldpdu(data + padding)
    assert (found, found.passed_over) == (pdu, 0)
    frame = serialize_frame(mac, pdu)
    assert parse_frame(frame) == pdu
    assert frame.endswith(data)
    assert frame[6:12] == mac


@given(PDUS, st.data())
def test_what_is_cut_is_read_as_far_as_it_goes_or_refused(pdu: Lldpdu, data: st.DataObject) -> None:
    whole = serialize_lldpdu(pdu)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        found = parse_lldpdu(cut)
    except RemoteProtocolError:
        return
    # Without its end, or some TLVs: what is read was written so.
    assert whole.startswith(serialize_lldpdu(found)[:-2])


@given(st.one_of(st.binary(max_size=200), st.lists(TLVS, max_size=6).map(b"".join).map(LEAST.__add__)))
def test_whatever_comes_is_safe_to_show_or_refused(data: bytes) -> None:
    try:
        pdu = parse_lldpdu(data)
    except RemoteProtocolError:
        return
    shown = [chassis_text(pdu.chassis_id), port_text(pdu.port_id)]
    shown += [address_text(each.family, each.address) for each in pdu.management_addresses]
    assert all(text == "" or text.isprintable() for text in shown)
    assert parse_lldpdu(serialize_lldpdu(pdu)) == pdu
