"""Throw bytes at the L2TPv3 header: it is one that we would write, or `RemoteProtocolError` says why not.

Run: ``python tests/fuzz/fuzz_l2tpv3.py [libFuzzer options]``, for example with ``-max_total_time=60``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.wire.l2tpv3 import parse_udp_header, serialize_header


def one_input(data: bytes) -> None:
    """Feed one input to the parser, for each size that a cookie may have."""
    for cookie_size in (0, 4, 8):
        with contextlib.suppress(RemoteProtocolError):
            session, cookie = parse_udp_header(data, cookie_size)
            assert data.startswith(serialize_header(session, cookie, udp=True))


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
