"""The native engine runs programs as ``umlab.switch.bpf`` does, whatever they are and whatever the frame."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.bpf_programs import CODES, random_program
from support.engines import WHY_NOT_NATIVE
from umlab.switch import bpf

WORD = 0xFFFF_FFFF
# Instructions whose limits random numbers seldom meet.
LD_IMM, LDX_IMM, TXA, RET_A, MSH = 0x00, 0x01, 0x87, 0x16, 0xB1
WORD_X, HALF_X, BYTE_X, LSH_X, RSH_X, DIV_X, MOD_X = 0x40, 0x48, 0x50, 0x6C, 0x7C, 0x3C, 0x9C
FRAME = bytes(range(1, 41))
EDGES = [
    *(
        [(LDX_IMM, x), (code, k)]
        for code in (WORD_X, HALF_X, BYTE_X)
        for x in (0, 1, WORD)
        for k in (0, 5, WORD)
    ),
    *([(LDX_IMM, 0), (code, k)] for code in (WORD_X, HALF_X, BYTE_X) for k in range(35, 42)),
    *(
        [(LD_IMM, 0x8000_0001), (LDX_IMM, x), (code, 0)]
        for code in (LSH_X, RSH_X)
        for x in (0, 1, 31, 32, 33, WORD)
    ),
    *([(LD_IMM, 7), (LDX_IMM, x), (code, 0)] for code in (DIV_X, MOD_X) for x in (0, 2, WORD)),
    *([(MSH, k), (TXA, 0)] for k in (0, 39, 40)),
]


@pytest.mark.skipif(bool(WHY_NOT_NATIVE), reason=WHY_NOT_NATIVE)
@pytest.mark.parametrize("instructions", EDGES, ids=str)
def test_native_result_at_the_limits(instructions: list[tuple[int, int]]) -> None:
    from umlab.engine._native import bpf as native_bpf

    steps = (*((code, 0, 0, k) for code, k in instructions), (RET_A, 0, 0, 0))
    program = bpf.Program(tuple(bpf.Instruction(*each) for each in steps))
    assert native_bpf.run(program, FRAME) == bpf.run(program, FRAME)


@pytest.mark.skipif(bool(WHY_NOT_NATIVE), reason=WHY_NOT_NATIVE)
@settings(max_examples=1000)
@given(st.integers(0, 1 << 64), st.binary(max_size=120))
def test_native_result_is_that_of_the_python_code(seed: int, frame: bytes) -> None:
    from umlab.engine._native import bpf as native_bpf

    program = random_program(random.Random(seed))
    assert native_bpf.run(program, frame) == bpf.run(program, frame), program


def test_programs_have_every_instruction_and_end_in_different_ways() -> None:
    programs = [random_program(random.Random(seed)) for seed in range(2000)]
    assert {each.code for program in programs for each in program.instructions} == CODES
    frame = random.Random(0).randbytes(80)
    results = Counter(bpf.run(program, frame) for program in programs)
    assert results[0] < len(programs) * 0.65
    assert len(results) > 300
