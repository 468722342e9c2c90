"""Throw bytes at who walks over blocks of captures: packets, or `RemoteProtocolError` says why not.

Run: ``python tests/fuzz/fuzz_capture_blocks.py [libFuzzer options]``, such as ``-max_total_time=60``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.capture.merge import Merge
    from umlab.capture.talkers import newest_sent
    from umlab.errors import RemoteProtocolError


def one_input(data: bytes) -> None:
    """Feed one input to who walks over blocks, from its end and from its beginning."""
    with contextlib.suppress(RemoteProtocolError):
        for sent in newest_sent(data):
            assert len(sent.addresses) == 12
    with contextlib.suppress(RemoteProtocolError):
        assert len(Merge().add(0, data)) <= len(data)


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
