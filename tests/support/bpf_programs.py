"""Random programs of classic BPF that may run."""

from __future__ import annotations

import random

from umlab.switch.bpf import MEMORY_WORDS, Instruction, Program

# Source: Linux include/uapi/linux/bpf_common.h.
_FROM_FRAME = (0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xB1)
_FROM_MEMORY = (0x60, 0x61, 0x02, 0x03)
_OTHER_LOADS = (0x00, 0x01, 0x80, 0x81)
_BY_CONSTANT = (0x04, 0x14, 0x24, 0x44, 0x54, 0xA4)
_DIVISIONS = (0x34, 0x94)
_SHIFTS = (0x64, 0x74)
_BY_X = (0x0C, 0x1C, 0x2C, 0x3C, 0x4C, 0x5C, 0x6C, 0x7C, 0x9C, 0xAC)
_ALONE = (0x84, 0x07, 0x87)
_JUMPS = (0x15, 0x1D, 0x25, 0x2D, 0x35, 0x3D, 0x45, 0x4D)
_ALWAYS = (0x05,)
_RETURNS = (0x06, 0x16)
_XOR_X, _RET_A = 0xAC, 0x16
_KINDS = (
    *(_FROM_FRAME, _FROM_FRAME, _FROM_MEMORY, _OTHER_LOADS, _BY_CONSTANT, _DIVISIONS, _SHIFTS, _ALONE) * 3,
    *(_BY_X, _JUMPS) * 6,
    *(_ALWAYS, _RETURNS),
)
#: Every code that there is.
CODES = frozenset(code for kind in _KINDS for code in kind)
_WORD = 0xFFFF_FFFF
_NUMBERS = (0, 1, 2, 3, 31, 32, 60, 0x8000_0000, _WORD)


def random_program(rng: random.Random, most: int = 12) -> Program:
    """Return a program of up to so many instructions, of every kind; the same for equal generators.

    What most of them return depends on both registers.
    """
    count = rng.randint(1, most)
    end = (Instruction(_XOR_X, 0, 0, 0), Instruction(_RET_A, 0, 0, 0)) if rng.random() < 0.9 else ()
    after = len(end)
    return Program((*(_instruction(rng, count - place - 1 + after) for place in range(count)), *end))


def _instruction(rng: random.Random, after: int) -> Instruction:
    """Return one that may have so many behind it."""
    kind = rng.choice(_KINDS) if after else _RETURNS
    if after < 2 and kind in (_JUMPS, _ALWAYS):
        kind = _OTHER_LOADS
    code = rng.choice(kind)
    k = rng.choice([rng.choice(_NUMBERS), rng.randrange(80), rng.randrange(_WORD)])
    if kind is _FROM_FRAME:
        k = rng.choice([*(rng.randrange(64) for _ in range(9)), rng.choice([120, 0x7FFF_FFFF])])
    elif kind is _FROM_MEMORY:
        k = rng.randrange(MEMORY_WORDS)
    elif kind is _DIVISIONS:
        k = k or 1
    elif kind is _SHIFTS:
        k %= 32
    elif kind is _ALWAYS:
        k = rng.randrange(after)
    elif kind is _JUMPS:
        return Instruction(code, *(rng.randrange(min(after, 256)) for _ in range(2)), k)
    return Instruction(code, rng.randrange(256), rng.randrange(256), k)
