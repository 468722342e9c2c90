"""Throw bytes at the cpio reader: only `RemoteProtocolError` may come out, and what parses is stable.

Run: ``python tests/fuzz/fuzz_cpio.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.guest.inside.cpio import parse_archive, serialize_archive


def one_input(data: bytes) -> None:
    """Parse an archive; write and parse again what it held."""
    try:
        members = list(parse_archive(data))
    except RemoteProtocolError:
        return
    # A name without bytes can be read, and is never written.
    named = [member for member in members if member.name]
    assert list(parse_archive(serialize_archive(named))) == named


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
