"""Throw bytes at the console's parsers and session: only `RemoteProtocolError` may come out.

A simulated guest's kernel takes the same bytes and answers them all.

Run: ``python tests/fuzz/fuzz_mconsole.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60`` and a copy of tests/vectors/mconsole_*.bin as corpus.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.mconsole.session import MconsoleSession
    from umlab.testing.kernel import SimulatedKernel
    from umlab.wire.mconsole import parse_notification, parse_reply, parse_request


def one_input(data: bytes) -> None:
    """Feed one input to every parser, and, cut into datagrams, to a session."""
    for parse in (parse_request, parse_reply, parse_notification):
        with contextlib.suppress(RemoteProtocolError):
            parse(data)
    kernel = SimulatedKernel("6.1.176", "(none)", 1 << 27)
    for datagram in (data[:600], b"\xbe\xba\xfe\xca\2\0\0\0\xff\1\0\0" + data[:511]):
        for reply in kernel.receive(datagram).datagrams:
            parse_reply(reply)
    session = MconsoleSession(max_answer=2000)
    session.request(b"proc x", 0, 1000)
    source = atheris.FuzzedDataProvider(data)
    for now_ns in range(64):
        if not source.remaining_bytes():
            break
        with contextlib.suppress(RemoteProtocolError):
            session.receive_datagram(source.ConsumeBytes(source.ConsumeIntInRange(0, 600)), now_ns)
        if session.next_event() is not None or session.get_timer() is None:
            session.request(b"proc x", now_ns, 1000)


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
