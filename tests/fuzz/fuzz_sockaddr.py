"""Throw bytes at the socket addresses: a path field is usable, or `ValueError` says why not.

Run: ``python tests/fuzz/fuzz_sockaddr.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60`` and a copy of tests/vectors/daemon_reply_*.bin as corpus.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.wire.sockaddr import (
        SOCKADDR_SIZE,
        pad_path,
        parse_sockaddr,
        printable,
        serialize_sockaddr,
        socket_address,
    )


def one_input(data: bytes) -> None:
    """Feed one input to everything that takes an address."""
    assert printable(data).isprintable()
    with contextlib.suppress(ValueError):
        socket_address(data)
    if len(data) >= SOCKADDR_SIZE:
        _, path = parse_sockaddr(data)
        assert serialize_sockaddr(path)[2:] == data[2:SOCKADDR_SIZE]
        with contextlib.suppress(ValueError):
            address = socket_address(path)
            assert path.startswith(pad_path(address).rstrip(b"\0"))


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
