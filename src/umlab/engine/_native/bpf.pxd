"""Programs of classic BPF, copied to where they run without the GIL: see ``umlab.switch.bpf``."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t


cdef enum:
    #: As umlab.switch.bpf.MEMORY_WORDS.
    MEMORY_WORDS = 16


cdef struct Instruction:
    # Part of a program that has been checked: every jump stays inside, and what ends it returns.  Made and
    # freed by control, never changed in between.
    uint16_t code
    uint8_t jt
    uint8_t jf
    uint32_t k


cdef Instruction *bpf_copy(program) except NULL
cdef uint32_t bpf_run(const Instruction *program, const uint8_t *data, uint32_t length) noexcept nogil
