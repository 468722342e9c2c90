"""L2TPv3 headers: as the UML kernel writes them, and what is none."""

from __future__ import annotations

import pytest

from umlab.errors import RemoteProtocolError, TruncatedMessage, UnsupportedVersion
from umlab.wire.l2tpv3 import parse_udp_header, serialize_header

#: What a UML 6.1 guest sends: tx_session=0x55667788; and tx_session=2 with a cookie of 64 bits.
PLAIN = bytes.fromhex("00030000 55667788")
COOKIE = bytes.fromhex("00030000 00000002 0102030405060708")


def test_header_is_the_one_that_the_kernel_sends() -> None:
    assert serialize_header(0x55667788, b"", udp=True) == PLAIN
    assert serialize_header(2, bytes(range(1, 9)), udp=True) == COOKIE
    assert serialize_header(2, b"\1\2\3\4", udp=False) == bytes.fromhex("00000002 01020304")


def test_header_of_the_kernel_is_read() -> None:
    assert parse_udp_header(PLAIN + b"frame", 0) == (0x55667788, b"")
    assert parse_udp_header(COOKIE + b"\0\0\0\1frame", 8) == (2, bytes(range(1, 9)))
    assert parse_udp_header(COOKIE, 4) == (2, b"\1\2\3\4")


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", TruncatedMessage, "0 of 12 bytes"),
        (COOKIE[:11], TruncatedMessage, "11 of 12 bytes"),
        (bytes.fromhex("c8030014") + bytes(16), RemoteProtocolError, "a control message"),
        (bytes.fromhex("00020000") + bytes(16), UnsupportedVersion, "version 2"),
        (bytes.fromhex("40030000") + bytes(16), RemoteProtocolError, "reserved bits"),
        (bytes.fromhex("00030001") + bytes(16), RemoteProtocolError, "reserved bits"),
    ],
)
def test_what_is_no_data_message_is_refused(data: bytes, error: type, text: str) -> None:
    with pytest.raises(error, match=text):
        parse_udp_header(data, 4)
