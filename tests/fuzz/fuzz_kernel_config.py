"""Throw bytes at the readers of a kernel's options, of fragments of them, and of a tree's list of modules.

What a kernel answers is taken whatever it is; the others refuse what they do not know.

Run: ``python tests/fuzz/fuzz_kernel_config.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.guest.kernel.config import features_of, parse_config, transports_of
    from umlab.guest.kernel.option import parse_fragment, serialize_fragment
    from umlab.guest.kernel.tree import parse_order


def one_input(data: bytes) -> None:
    """Give one input to each reader."""
    config = parse_config(data)
    assert all(re.fullmatch("CONFIG_[A-Za-z0-9_]+|release", name) for name in config)
    assert not any("\n" in value for value in config.values())
    for each in (*transports_of(config), *features_of(config)):
        assert not {name for name in each.missing if config.get(name) == "y"}
    with contextlib.suppress(RemoteProtocolError):
        options = parse_fragment(data)
        assert parse_fragment(serialize_fragment(options)) == options
    with contextlib.suppress(RemoteProtocolError):
        for path in parse_order(data):
            assert posixpath.normpath(f"/tree/{path}") == f"/tree/{path}"


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
