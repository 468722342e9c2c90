"""Classic BPF: programs that say how many bytes of a frame are kept; checked before they run.

The language of ``tcpdump -ddd``.  Jumps go forward only, so every program ends.

Source: McCanne and Jacobson, USENIX Winter 1993; Linux include/uapi/linux/{bpf_common,filter}.h.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

#: Instructions of a program at most, and words of its memory.
MAX_INSTRUCTIONS, MEMORY_WORDS = 4096, 16

# A code: the class, 3 bits; then for loads the width, 2 bits, and the mode, 3 bits; for arithmetic and jumps
# where the operand is, 1 bit, and the operation, 4 bits; for RET what is returned, 2 bits.
_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
_CLASS, _WIDTH, _MODE, _OPERATION = 0x07, 0x18, 0xE0, 0xF0
_IMM, _ABS, _IND, _MEM, _LEN, _MSH = 0x00, 0x20, 0x40, 0x60, 0x80, 0xA0
#: Bytes of each width: word, half word, byte.
_WIDTHS = {0x00: 4, 0x08: 2, 0x10: 1}
_BYTE = 0x10
_FROM_X = 0x08
_MUL, _DIV, _LSH, _RSH, _NEG, _MOD = 0x20, 0x30, 0x60, 0x70, 0x80, 0x90
_JA = 0x00
_RETURN_A = 0x10
_TAX, _TXA = 0x00, 0x80

_WORD = 0xFFFF_FFFF
_WORD_BITS = 32
#: Offsets from here on are negative; the kernel finds what is no part of a frame there.
_NEGATIVE = 0x8000_0000

#: Division and remainder are never asked of 0, nor shifts of more than a word has.
_ARITHMETIC: dict[int, Callable[[int, int], int]] = {
    0x00: operator.add,
    0x10: operator.sub,
    _MUL: operator.mul,
    _DIV: operator.floordiv,
    0x40: operator.or_,
    0x50: operator.and_,
    _LSH: operator.lshift,
    _RSH: operator.rshift,
    _NEG: lambda value, _: -value,
    _MOD: operator.mod,
    0xA0: operator.xor,
}
_TESTS: dict[int, Callable[[int, int], int]] = {
    0x10: operator.eq,
    0x20: operator.gt,
    0x30: operator.ge,
    0x40: operator.and_,
}
_CODES = frozenset(
    {
        *(_LD | width | mode for width in _WIDTHS for mode in (_ABS, _IND)),
        *(kind | mode for kind in (_LD, _LDX) for mode in (_IMM, _MEM, _LEN)),
        _LDX | _BYTE | _MSH,
        _ST,
        _STX,
        *(_ALU | operation | source for operation in _ARITHMETIC for source in (0, _FROM_X)),
        _JMP | _JA,
        *(_JMP | operation | source for operation in _TESTS for source in (0, _FROM_X)),
        _RET,
        _RET | _RETURN_A,
        _MISC | _TAX,
        _MISC | _TXA,
    }
) - {_ALU | _NEG | _FROM_X}
#: What reads or writes the memory.
_MEMORY_CODES = frozenset({_LD | _MEM, _LDX | _MEM, _ST, _STX})
_NUMBER = re.compile(r"[0-9]{1,10}")


class Instruction(NamedTuple):
    """One instruction: code u16, jt u8, jf u8, k u32."""

    code: int
    jt: int
    jf: int
    k: int


@dataclass(frozen=True, slots=True)
class Program:
    """A program that has been checked.

    It has 1 to ``MAX_INSTRUCTIONS`` known instructions, of which the last returns; jumps go forward and stay
    inside; what it divides by is not the constant 0, what it shifts by less than 32; its memory has
    ``MEMORY_WORDS`` words; and no load from a fixed place lies outside of every frame, where Linux keeps
    what is no part of it.

    Raises:
        ValueError: It is no program that may run; says which instruction, from 0 on, and why.

    Source: Linux net/core/filter.c ``bpf_check_classic``, the same but for the memory: words that were
        never written are 0 here, and may be read.
    """

    instructions: tuple[Instruction, ...]

    def __post_init__(self) -> None:
        count = len(self.instructions)
        if not 1 <= count <= MAX_INSTRUCTIONS:
            raise ValueError(f"a program has 1 to {MAX_INSTRUCTIONS} instructions, not {count}")
        for number, instruction in enumerate(self.instructions):
            reason = _what_is_wrong(instruction, count - number - 1)
            if reason:
                raise ValueError(f"instruction {number}: {reason}")


def run(program: Program, frame: bytes, length: int | None = None) -> int:
    """Return how many bytes of a frame are to be kept, 0 for none, up to 2**32 - 1.

    A, X and the words of the memory are 0 in the beginning, and numbers are unsigned, of 32 bits.

    - A load, also MSH, of which any byte lies behind the last of ``frame`` ends the program with 0.  The
      place of an IND load is X + k, not modulo 2**32.
    - What is loaded is big-endian.  MSH makes X four times the lower four bits of a byte.  LEN is ``length``.
    - ADD, SUB, MUL, NEG, LSH are modulo 2**32.  DIV and MOD by an X of 0 end the program with 0; LSH and
      RSH by an X of 32 or more make A 0.
    - JGT and JGE compare unsigned numbers; JSET holds when A and the operand have a bit in common.

    Args:
        program: What decides.
        frame: What can be loaded.
        length: Bytes of the whole frame, where ``frame`` is its beginning only.
    """
    instructions = program.instructions
    memory = [0] * MEMORY_WORDS
    a = x = at = 0
    while True:
        code, jt, jf, k = instructions[at]
        at += 1
        kind = code & _CLASS
        if kind == _JMP:
            operation = code & _OPERATION
            if operation == _JA:
                at += k
            else:
                at += jt if _TESTS[operation](a, x if code & _FROM_X else k) else jf
        elif kind in (_LD, _LDX):
            mode = code & _MODE
            if mode == _IMM:
                value = k
            elif mode == _MEM:
                value = memory[k]
            elif mode == _LEN:
                value = len(frame) if length is None else length
            else:
                begin = x + k if mode == _IND else k
                end = begin + _WIDTHS[code & _WIDTH]
                if end > len(frame):
                    return 0
                value = int.from_bytes(frame[begin:end], "big")
                if mode == _MSH:
                    value = (value & 0x0F) * 4
            if kind == _LD:
                a = value
            else:
                x = value
        elif kind == _RET:
            return a if code & _WIDTH == _RETURN_A else k
        elif kind == _ALU:
            result = _compute(code & _OPERATION, a, x if code & _FROM_X else k)
            if result is None:
                return 0
            a = result
        elif kind in (_ST, _STX):
            memory[k] = a if kind == _ST else x
        elif code & _OPERATION == _TXA:
            a = x
        else:
            x = a


def parse_ddd(text: str) -> Program:
    """Read what ``tcpdump -ddd`` prints: how many instructions, then a line ``code jt jf k`` for each.

    Raises:
        ValueError: It is something else, or no program that may run.
    """
    lines = text.splitlines()
    count = int(lines[0]) if lines and _NUMBER.fullmatch(lines[0].strip()) else None
    if count is None:
        raise ValueError("line 1: not the number of instructions")
    if count != len(lines) - 1:
        raise ValueError(f"line 1: {count} instructions, and {len(lines) - 1} follow")
    instructions = []
    for number, line in enumerate(lines[1:], 2):
        fields = line.split()
        if len(fields) != len(Instruction._fields) or not all(map(_NUMBER.fullmatch, fields)):
            raise ValueError(f"line {number}: not an instruction of four numbers")
        instructions.append(Instruction(*map(int, fields)))
    return Program(tuple(instructions))


def _what_is_wrong(instruction: Instruction, after: int) -> str:
    """Return why an instruction may not run that has so many behind it; nothing if it may."""
    code, jt, jf, k = instruction
    if not (0 <= code <= 0xFFFF and 0 <= jt <= 0xFF and 0 <= jf <= 0xFF and 0 <= k <= _WORD):
        return "a number does not fit its field"
    if code not in _CODES:
        return f"unknown code {code:#06x}"
    kind, mode = code & _CLASS, code & _MODE
    if kind == _JMP and (k if code & _OPERATION == _JA else max(jt, jf)) >= after:
        return "jumps backwards" if code == _JMP | _JA and k >= _NEGATIVE else "jumps outside of the program"
    if kind != _RET and after == 0:
        return "the last instruction does not return"
    if code in (_ALU | _DIV, _ALU | _MOD) and k == 0:
        return "divides by 0"
    if code in (_ALU | _LSH, _ALU | _RSH) and k >= _WORD_BITS:
        return f"shifts by {k} bits"
    if code in _MEMORY_CODES and k >= MEMORY_WORDS:
        return f"memory has no word {k}"
    if k >= _NEGATIVE and ((kind == _LD and mode == _ABS) or (kind == _LDX and mode == _MSH)):
        return "reads outside of the frame"
    return ""


def _compute(operation: int, value: int, operand: int) -> int | None:
    """Return what becomes of A; ``None`` for what nothing can be divided by."""
    if operation in (_DIV, _MOD) and operand == 0:
        return None
    if operation in (_LSH, _RSH) and operand >= _WORD_BITS:
        return 0
    return _ARITHMETIC[operation](value, operand) & _WORD
