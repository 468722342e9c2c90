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


@pytest.mark.skipif(bool(WHY_NOT_NATIVE), reason=WHY_NOT_NATIVE)
@settings(max_examples=2000)
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
    assert results[0] < len(programs) * 0.7
    assert len(results) > 100
