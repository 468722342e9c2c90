"""Throw bytes at the parser of VDE requests: only `RemoteProtocolError` may come out.

Run: ``python tests/fuzz/fuzz_vde.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60`` and a copy of tests/vectors/daemon_*.bin as corpus.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError, TruncatedMessage
    from umlab.wire.text import printable_line
    from umlab.wire.vde import parse_vde_request, serialize_vde_request


def one_input(data: bytes) -> None:
    """Feed one input to the parser; what it takes must come out of the serialiser again."""
    shown = printable_line(data)
    assert not shown or shown.isprintable()
    error: RemoteProtocolError | None = None
    try:
        request = parse_vde_request(data)
    except RemoteProtocolError as raised:
        error = raised
    if error is None:
        assert parse_vde_request(serialize_vde_request(request)) == request
    elif isinstance(error, TruncatedMessage):
        assert error.got == len(data) < error.needed
    else:
        assert str(error).isprintable()


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
