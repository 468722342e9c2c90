"""Whatever a program is, it is refused or it ends, and says how many bytes to keep."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from support.bpf_programs import CODES
from umlab.switch.bpf import Instruction, Program, parse_ddd, run

WORD = 0xFFFF_FFFF
words = st.one_of(st.integers(0, 80), st.sampled_from([0x7FFF_FFFF, 0x8000_0000, WORD]), st.integers(0, WORD))
jumps = st.one_of(st.integers(0, 5), st.integers(0, 255))
instructions = st.builds(Instruction, st.sampled_from(sorted(CODES)), jumps, jumps, words)
wild = st.builds(Instruction, *[st.one_of(st.integers(-2, 300), st.integers())] * 4)
ends = st.sampled_from([Instruction(0x06, 0, 0, 96), Instruction(0x16, 0, 0, 0)])
frames = st.binary(max_size=100)


@settings(max_examples=500)
@given(st.lists(instructions, max_size=12), ends, frames, st.none() | st.integers(0, 70_000))
def test_program_is_refused_or_ends(
    body: list[Instruction], end: Instruction, frame: bytes, length: int | None
) -> None:
    with contextlib.suppress(ValueError):
        program = Program((*body, end))
        assert 0 <= run(program, frame, length) <= WORD


@given(st.lists(st.one_of(instructions, wild), max_size=5))
def test_anything_is_a_program_or_a_value_error(body: list[Instruction]) -> None:
    try:
        program = Program(tuple(body))
    except ValueError:
        return
    lines = [str(len(body)), *(" ".join(map(str, each)) for each in body)]
    assert parse_ddd("\n".join(lines)) == program


@given(st.one_of(st.text(max_size=40), st.text(alphabet="0123456789 \n-", max_size=60)))
def test_any_text_is_a_program_or_a_value_error(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert len(parse_ddd(text).instructions) == int(text.split()[0])
