"""Throw lines at the reader of a guest's agent: a line of the protocol, or RemoteProtocolError.

Run: ``python tests/fuzz/fuzz_agent.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.errors import RemoteProtocolError
    from umlab.guest.inside.agent_line import SESSIONS, End, Exit, More, parse_line


def one_input(data: bytes) -> None:
    """Read some lines."""
    for line in data.split(b"\n"):
        with contextlib.suppress(RemoteProtocolError):
            said = parse_line(line)
            if isinstance(said, More | Exit | End):
                assert 1 <= said.session <= SESSIONS
            assert not isinstance(said, Exit) or 0 <= said.status <= 255


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
