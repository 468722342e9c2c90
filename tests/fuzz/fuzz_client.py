"""Throw bytes at what reads a daemon's answers: only `UmlabError` may come out.

Run: ``python tests/fuzz/fuzz_client.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab", "h11"]):
    from umlab.client.decode import refusal
    from umlab.client.event import EventParser
    from umlab.client.exchange import END, Exchange, Request
    from umlab.errors import UmlabError


def one_input(data: bytes) -> None:
    """Feed one input, cut in two, to a response, a stream of events and a refusal."""
    cut = data[0] if data else 0
    pieces = [piece for piece in (data[1 : cut + 1], data[cut + 1 :]) if piece]
    exchange = Exchange("lan", Request("GET", "/"))
    with contextlib.suppress(UmlabError):
        for piece in [*pieces, b""]:
            exchange.receive_data(piece)
            while (event := exchange.next_event()) is not None:
                if event is END:
                    break
            if event is END:
                break
    parser = EventParser("lan")
    with contextlib.suppress(UmlabError):
        for piece in pieces:
            parser.receive(piece)
    assert isinstance(refusal("lan", 500, data), UmlabError)


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
