"""L2TPv3 headers: what was written is read, and nothing else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.wire.l2tpv3 import parse_udp_header, serialize_header

COOKIE_SIZES = st.sampled_from((0, 4, 8))


@given(
    st.integers(0, 2**32 - 1), COOKIE_SIZES.flatmap(lambda n: st.binary(min_size=n, max_size=n)), st.binary()
)
def test_header_is_read_as_made_with_anything_behind_it(session: int, cookie: bytes, frame: bytes) -> None:
    header = serialize_header(session, cookie, udp=True)
    assert parse_udp_header(header + frame, len(cookie)) == (session, cookie)
    assert header.endswith(serialize_header(session, cookie, udp=False))


@given(st.one_of(st.binary(max_size=40), st.binary(max_size=40).map(b"\0\3\0\0".__add__)), COOKIE_SIZES)
def test_bytes_are_a_header_only_if_it_is_written_so(data: bytes, cookie_size: int) -> None:
    try:
        session, cookie = parse_udp_header(data, cookie_size)
    except RemoteProtocolError:
        assert len(data) < 8 + cookie_size or not data.startswith(b"\0\3\0\0")
    else:
        assert data.startswith(serialize_header(session, cookie, udp=True))
