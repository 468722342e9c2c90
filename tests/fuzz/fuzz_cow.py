"""Throw bytes at what reads COW files: only `RemoteProtocolError` may come out, and what parses is stable.

Run: ``python tests/fuzz/fuzz_cow.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.wire.cow import changed_sectors, parse_cow_header, serialize_cow_header


def one_input(data: bytes) -> None:
    """Parse a header and write it again; read the bytes as a bitmap."""
    last = 0
    for first, count in changed_sectors(data, len(data) * 8 - 3):
        assert last <= first < first + count <= len(data) * 8 - 3
        last = first + count + 1
    try:
        header = parse_cow_header(data)
    except RemoteProtocolError:
        return
    assert header.data_offset >= header.bitmap_offset + header.bitmap_length
    # A path without bytes can be read, and is never written.
    if header.backing:
        assert parse_cow_header(serialize_cow_header(header)) == header


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
