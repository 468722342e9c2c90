"""The attach codec is its own inverse, and reads a stream the same however it is cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import OversizeMessage, RemoteProtocolError, TruncatedMessage
from umlab.wire.daemon import (
    MAGIC,
    AttachRequest,
    parse_attach_reply,
    parse_attach_request,
    serialize_attach_reply,
    serialize_attach_request,
)

PATHS = st.binary(min_size=108, max_size=108).filter(lambda path: path.strip(b"\0"))
MACS = st.binary(min_size=6, max_size=6)
REQUESTS = st.one_of(
    st.builds(AttachRequest, st.sampled_from([0, 1]), PATHS, MACS),
    st.builds(AttachRequest, st.just(3), PATHS, dump=st.booleans()),
)
#: Bytes that get past the first checks often enough.
HOSTILE = st.builds(
    lambda magic, version, kind, rest: magic + version + kind + rest,
    st.sampled_from([MAGIC.to_bytes(4, "little"), b"\0\0\0\0", b""]),
    st.sampled_from([bytes((number, 0, 0, 0)) for number in range(5)] + [b""]),
    st.sampled_from([bytes((number, 0, 0, 0)) for number in range(3)] + [b""]),
    st.binary(max_size=260),
)


def outcome(data: bytes, *, v0: bool) -> AttachRequest | RemoteProtocolError:
    """Return what the parser makes of the bytes."""
    try:
        return parse_attach_request(data, v0=v0)
    except RemoteProtocolError as error:
        return error


@given(REQUESTS)
def test_request_is_read_as_made(request: AttachRequest) -> None:
    assert parse_attach_request(serialize_attach_request(request), v0=True) == request


@given(PATHS)
def test_reply_is_read_as_made(path: bytes) -> None:
    assert parse_attach_reply(serialize_attach_reply(path)) == path


@given(REQUESTS, st.binary(max_size=126))
def test_v3_is_read_with_anything_behind_it(request: AttachRequest, trailing: bytes) -> None:
    data = serialize_attach_request(request) + trailing
    result = outcome(data, v0=True)
    if request.version == 3 or not trailing:
        assert result == request
    else:
        assert isinstance(result, OversizeMessage)


@given(st.one_of(REQUESTS.map(serialize_attach_request), HOSTILE), st.booleans())
def test_reader_that_waits_while_told_to_has_the_verdict_of_one_that_has_all_bytes(
    data: bytes, v0: bool
) -> None:
    whole = outcome(data, v0=v0)
    needed = 0
    for length in range(len(data) + 1):
        verdict = outcome(data[:length], v0=v0)
        if not isinstance(verdict, TruncatedMessage):
            assert length >= needed
            assert isinstance(whole, OversizeMessage) or str(whole) == str(verdict)
            return
        assert verdict.got == length < verdict.needed
        assert verdict.needed >= needed
        needed = verdict.needed
    assert isinstance(whole, TruncatedMessage)


@given(HOSTILE, st.booleans())
def test_any_bytes_are_a_request_or_a_protocol_error(data: bytes, v0: bool) -> None:
    result = outcome(data, v0=v0)
    if isinstance(result, AttachRequest):
        assert data.startswith(serialize_attach_request(result)[:120])
        assert result.path.strip(b"\0")
        assert result.version == 3 or not result.dump
