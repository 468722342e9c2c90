"""Throw bytes at what tells a file by its beginning, and at the reader of apt's sources: nothing comes out.

Run: ``python tests/fuzz/fuzz_magic.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.guest.disk.apt_source import parse_deb822, parse_list
    from umlab.wire.magic import block_size, file_kind


def one_input(data: bytes) -> None:
    """Feed one input to each reader."""
    file_kind(data)
    block_size(bytes(1024) + data)
    file_kind(bytes(1024) + data)
    text = data.decode("utf-8", "replace")
    for source in [*parse_list(text), *parse_deb822(text)]:
        assert source.line.startswith("deb ")


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
