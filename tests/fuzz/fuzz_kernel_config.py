"""Throw bytes at the reader of a kernel's options: it takes everything, and every name is an option's.

Run: ``python tests/fuzz/fuzz_kernel_config.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import re
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.guest.kernel_config import parse_config, transports_of


def one_input(data: bytes) -> None:
    """Read one answer."""
    config = parse_config(data)
    assert all(re.fullmatch("CONFIG_[A-Za-z0-9_]+|release", name) for name in config)
    assert not any("\n" in value for value in config.values())
    for each in transports_of(config):
        assert not {name for name in each.missing if config.get(name) == "y"}


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
