"""The VDE codec is its own inverse, and any bytes are a request or a protocol error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError, TruncatedMessage
from umlab.wire.daemon import MAGIC
from umlab.wire.vde import VdeRequest, parse_vde_request, serialize_vde_request

PATHS = st.binary(min_size=108, max_size=108).filter(lambda path: path.strip(b"\0"))
TEXTS = st.one_of(st.just(b""), st.binary(min_size=3, max_size=128))
REQUESTS = st.one_of(
    st.builds(VdeRequest, st.just(1), PATHS, st.none(), TEXTS),
    st.builds(VdeRequest, st.just(3), PATHS, st.one_of(st.none(), st.integers(1, 65_535)), TEXTS),
)
#: Bytes that get past the first checks often enough.
HOSTILE = st.builds(
    lambda magic, version, rest: magic + version + rest,
    st.sampled_from([MAGIC.to_bytes(4, "little"), b""]),
    st.sampled_from([bytes((number, 0, 0, 0)) for number in range(5)] + [b""]),
    st.binary(max_size=260),
)


def outcome(data: bytes) -> VdeRequest | RemoteProtocolError:
    """Return what the parser makes of the bytes."""
    try:
        return parse_vde_request(data)
    except RemoteProtocolError as error:
        return error


@given(REQUESTS)
def test_request_is_read_as_made(request: VdeRequest) -> None:
    assert parse_vde_request(serialize_vde_request(request)) == request


@given(st.one_of(REQUESTS.map(serialize_vde_request), HOSTILE))
def test_reader_that_waits_while_told_to_gets_no_further_than_the_address(data: bytes) -> None:
    needed = 4
    while len(data) >= needed:
        verdict = outcome(data[:needed])
        if not isinstance(verdict, TruncatedMessage):
            assert needed <= 124
            return
        assert verdict.got == needed < verdict.needed
        needed = verdict.needed
    assert isinstance(outcome(data), TruncatedMessage)


@given(HOSTILE)
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes) -> None:
    result = outcome(data)
    if isinstance(result, VdeRequest):
        assert result.path.strip(b"\0")
        assert data.startswith(serialize_vde_request(result)[:4])
    else:
        assert str(result).isprintable()
