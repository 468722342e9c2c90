"""Throw words at the reader of a kernel's NICs: it takes everything, and invents nothing.

Run: ``python tests/fuzz/fuzz_nic.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.guest.nic import parse_nics


def one_input(data: bytes) -> None:
    """Read one command line."""
    words = [os.fsdecode(word) for word in data.split(b"\0")]
    for nic in parse_nics(words):
        assert f"{nic.name}={nic.setting}" in words or f"{nic.name}:{nic.setting}" in words
        assert nic.transport in nic.setting
        assert nic.mac is None or nic.mac in nic.setting.lower()


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
