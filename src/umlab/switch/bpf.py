"""Classic BPF: programs that say how many bytes of a frame are kept; checked before they run.

The language of ``tcpdump -ddd``.  Jumps go forward only and by their own width, so every program ends.

Source: McCanne and Jacobson, USENIX Winter 1993; Linux include/uapi/linux/{bpf_common,filter}.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Instructions of a program at most, and words of its memory.
MAX_INSTRUCTIONS, MEMORY_WORDS = 4096, 16


class Instruction(NamedTuple):
    """One instruction: code u16, jt u8, jf u8, k u32."""

    code: int
    jt: int
    jf: int
    k: int


@dataclass(frozen=True, slots=True)
class Program:
    """A program that has been checked.

    Raises:
        ValueError: It is no program that may run; says which instruction and why.
    """

    instructions: tuple[Instruction, ...]

    def __post_init__(self) -> None:
        raise NotImplementedError


def run(program: Program, frame: bytes) -> int:
    """Return how many bytes of a frame are to be kept, 0 for none."""
    raise NotImplementedError
