"""Fuzz target: of whatever bytes come on a stream or behind headers, the frames are forwarded, and no more.

It goes through real sockets, so it is slow; it is meant for the native engine in a sanitiser build, and
takes the Python engine where there is no other.

Run as ``python tests/fuzz/fuzz_links.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["umlab"]):
    from support.link_input import check_messages, check_stream
    from umlab.engine.select import create_engine
    from umlab.switch.model import MAX_HEADER, Encapsulation


def fuzz_one(data: bytes) -> None:
    """Send one input, in pieces of lengths that it names itself."""
    provider = atheris.FuzzedDataProvider(data)
    is_stream = provider.ConsumeBool()
    header = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 4))
    skip = provider.ConsumeIntInRange(0, MAX_HEADER - len(header))
    has_ip_header = provider.ConsumeBool()
    pieces = []
    while provider.remaining_bytes():
        pieces.append(provider.ConsumeBytes(provider.ConsumeIntInRange(0, 400)))
    if is_stream:
        check_stream(create_engine, pieces)
    else:
        check_messages(create_engine, Encapsulation(header, b"", skip, ip_header=has_ip_header), pieces)


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
