"""Throw texts at the parsers of what kernels say about themselves: only `RemoteProtocolError` may come out.

Run: ``python tests/fuzz/fuzz_reading.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.mconsole import reading

PARSERS = (
    reading.parse_version,
    reading.parse_uptime,
    reading.parse_loadavg,
    reading.parse_meminfo,
    reading.parse_stat,
    reading.parse_interrupts,
)
DEVICES = ("ubd0", "con0", "ssl0", "mem")


def one_input(data: bytes) -> None:
    """Feed one text to every parser, decoded as the clients do."""
    text = data.decode("utf-8", "backslashreplace")
    for parse in PARSERS:
        with contextlib.suppress(RemoteProtocolError):
            parse(text)
    for device in DEVICES:
        with contextlib.suppress(RemoteProtocolError):
            reading.parse_setting(device, text)


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
