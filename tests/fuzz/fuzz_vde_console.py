"""Throw bytes at the console: every read is one command at most, and what it is has an answer.

Run: ``python tests/fuzz/fuzz_vde_console.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60``.
"""

from __future__ import annotations

import os
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.compat._vde_console import Console, End, Setting
    from umlab.compat._vde_ports import VdeSwitch
    from umlab.switch.model import SwitchConfig
    from umlab.wire.vde_console import MAX_COMMAND, read_command

SWITCH = VdeSwitch(SwitchConfig(), [], 32)
SWITCH.engine.start()
CONSOLE = Console(SWITCH, Setting("/nowhere", 0o600, bytes(6), None, 0o600, 128))


def one_input(data: bytes) -> None:
    """Give the input to a console as one read after another; it may not read files."""
    for start in range(0, len(data), MAX_COMMAND):
        command = read_command(os.fsdecode(data[start : start + MAX_COMMAND]))
        assert "\n" not in command
        outcome = CONSOLE.execute(command, owner=False)
        said = outcome.reply.decode("utf-8", "surrogateescape")
        if outcome.end is End.NOTHING and command:
            assert said.splitlines()[-1].startswith(f"1{outcome.code:03d} ")
        else:
            assert said == ""


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
