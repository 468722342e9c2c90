"""Throw bytes at the readers of modules.dep and of a guest's processes: only documented errors come out.

Run: ``python tests/fuzz/fuzz_modules_dep.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.daemon.guest_process import parse_processes
    from umlab.errors import LabError, RemoteProtocolError
    from umlab.guest.console import escape
    from umlab.guest.kernel.module import parse_modules


def one_input(data: bytes) -> None:
    """Feed one input to each reader of what a guest or a file says."""
    dep, _, builtin = data.partition(b"\0")
    with contextlib.suppress(RemoteProtocolError):
        index = parse_modules(dep, builtin)
        with contextlib.suppress(LabError):
            index.load_order([*index.needs, "other"])
    processes = parse_processes(data)
    assert [each.pid for each in processes] == sorted({each.pid for each in processes})
    assert all(char in "\n\t" or char.isprintable() for char in escape(data))


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
