"""Throw bytes at the attach protocol's parsers: only `RemoteProtocolError` may come out.

Run: ``python tests/fuzz/fuzz_daemon.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60`` and a copy of tests/vectors/daemon_*.bin as corpus.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError, TruncatedMessage
    from umlab.wire.daemon import (
        parse_attach_reply,
        parse_attach_request,
        serialize_attach_reply,
        serialize_attach_request,
    )


def one_input(data: bytes) -> None:
    """Feed one input to both parsers; what they take must come out of the serialisers again."""
    for v0 in (False, True):
        error: RemoteProtocolError | None = None
        try:
            request = parse_attach_request(data, v0=v0)
        except RemoteProtocolError as raised:
            error = raised
        if error is None:
            assert parse_attach_request(serialize_attach_request(request), v0=v0) == request
            assert request.version == 3 or not request.dump
        elif isinstance(error, TruncatedMessage):
            assert error.got == len(data) < error.needed
        else:
            assert str(error).isprintable()
    with contextlib.suppress(RemoteProtocolError):
        assert serialize_attach_reply(parse_attach_reply(data)) == data


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
