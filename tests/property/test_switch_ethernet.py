"""Properties of the Ethernet codec."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import TruncatedMessage
from umlab.wire.ethernet import (
    EthernetHeader,
    format_mac,
    is_group,
    parse_ethernet,
    parse_mac,
    serialize_ethernet,
)

macs = st.binary(min_size=6, max_size=6)
headers = st.builds(EthernetHeader, macs, macs, st.integers(0, 0xFFFF))


@given(headers, st.binary(max_size=64))
def test_parse_undoes_serialize_whatever_follows(header: EthernetHeader, payload: bytes) -> None:
    assert parse_ethernet(serialize_ethernet(header) + payload) == header


@given(st.binary(min_size=14, max_size=100))
def test_serialize_undoes_parse(frame: bytes) -> None:
    assert serialize_ethernet(parse_ethernet(frame)) == frame[:14]


@given(st.binary(max_size=13))
def test_every_shorter_frame_is_truncated(frame: bytes) -> None:
    with pytest.raises(TruncatedMessage):
        parse_ethernet(frame)


@given(macs)
def test_mac_text_is_read_back(mac: bytes) -> None:
    assert parse_mac(format_mac(mac)) == mac
    assert is_group(mac) == (mac[0] % 2 == 1)


@given(st.text(max_size=20))
def test_any_text_is_a_mac_or_a_value_error(text: str) -> None:
    try:
        mac = parse_mac(text)
    except ValueError:
        return
    assert format_mac(mac) == text.lower()
