"""Fuzz target: any instructions are refused with ValueError, or a program that ends on any frame.

The native engine, where it is there, must come to the same end.

Run as ``python tests/fuzz/fuzz_bpf.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import contextlib
import struct
import sys

import atheris

with atheris.instrument_imports():
    from umlab.engine.select import why_not_native
    from umlab.switch.bpf import Instruction, Program, parse_ddd, run

if why_not_native():
    run_natively = run
else:
    from umlab.engine._native.bpf import run as run_natively

_INSTRUCTION = struct.Struct("<HBBI")


def fuzz_one(data: bytes) -> None:
    """Take half of the input as a program and the rest as the frame, and all of it as text."""
    at = len(data) // 2 // _INSTRUCTION.size * _INSTRUCTION.size
    instructions = tuple(Instruction(*each) for each in _INSTRUCTION.iter_unpack(data[:at]))
    try:
        program = Program(instructions)
    except ValueError:
        pass
    else:
        result = run(program, data[at:])
        assert 0 <= result < 1 << 32
        assert run_natively(program, data[at:]) == result
    with contextlib.suppress(ValueError):
        parse_ddd(data.decode(errors="replace"))


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
