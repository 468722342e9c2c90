"""Fuzz target: any bytes are a header that is written back the same, or TruncatedMessage.

Run as ``python tests/fuzz/fuzz_ethernet.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports():
    from umlab.errors import RemoteProtocolError
    from umlab.switch.core import SwitchCore
    from umlab.switch.model import SwitchConfig
    from umlab.wire.ethernet import HEADER_SIZE, parse_ethernet, serialize_ethernet


def fuzz_one(data: bytes) -> None:
    """Feed one input to the codec and to a switch; only a documented error may come out."""
    core = SwitchCore(SwitchConfig(max_frame=1518))
    for _ in range(3):
        core.add_port(0)
    verdict = core.receive(1, data, 0)
    try:
        header = parse_ethernet(data)
    except RemoteProtocolError:
        assert len(data) < HEADER_SIZE
        assert verdict.drop is not None
        return
    assert serialize_ethernet(header) == data[:HEADER_SIZE]
    assert bool(verdict.egress) == (verdict.drop is None)


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
