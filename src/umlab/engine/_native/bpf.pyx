"""Runs programs of classic BPF: ``umlab.switch.bpf.run`` by one branch for each instruction.

That a program ends, and stays within itself and its memory, ``umlab.switch.bpf.Program`` has checked.
What it reads of a frame is checked here.
"""

from libc.stdint cimport uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef enum:
    # Source: Linux include/uapi/linux/bpf_common.h.
    _LD_W_ABS = 0x20
    _LD_H_ABS = 0x28
    _LD_B_ABS = 0x30
    _LD_W_IND = 0x40
    _LD_H_IND = 0x48
    _LD_B_IND = 0x50
    _LD_IMM = 0x00
    _LD_MEM = 0x60
    _LD_LEN = 0x80
    _LDX_IMM = 0x01
    _LDX_MEM = 0x61
    _LDX_LEN = 0x81
    _LDX_MSH = 0xB1
    _ST = 0x02
    _STX = 0x03
    _ADD_K = 0x04
    _ADD_X = 0x0C
    _SUB_K = 0x14
    _SUB_X = 0x1C
    _MUL_K = 0x24
    _MUL_X = 0x2C
    _DIV_K = 0x34
    _DIV_X = 0x3C
    _OR_K = 0x44
    _OR_X = 0x4C
    _AND_K = 0x54
    _AND_X = 0x5C
    _LSH_K = 0x64
    _LSH_X = 0x6C
    _RSH_K = 0x74
    _RSH_X = 0x7C
    _NEG = 0x84
    _MOD_K = 0x94
    _MOD_X = 0x9C
    _XOR_K = 0xA4
    _XOR_X = 0xAC
    _JA = 0x05
    _JEQ_K = 0x15
    _JEQ_X = 0x1D
    _JGT_K = 0x25
    _JGT_X = 0x2D
    _JGE_K = 0x35
    _JGE_X = 0x3D
    _JSET_K = 0x45
    _JSET_X = 0x4D
    _RET_K = 0x06
    _RET_A = 0x16
    _TAX = 0x07
    _WORD_BITS = 32


cdef Instruction *bpf_copy(program) except NULL:
    """Copy the instructions of a ``umlab.switch.bpf.Program``; ``free`` takes them."""
    cdef Instruction *copy = <Instruction *>malloc(len(program.instructions) * sizeof(Instruction))
    cdef Instruction *at = copy
    if copy == NULL:
        raise MemoryError
    for code, jt, jf, k in program.instructions:
        at.code, at.jt, at.jf, at.k = code, jt, jf, k
        at += 1
    return copy


def run(program, bytes frame not None):
    """Return how many bytes of a frame are to be kept, as ``umlab.switch.bpf.run`` does."""
    cdef Instruction *copy = bpf_copy(program)
    try:
        return bpf_run(copy, <const uint8_t *><char *>frame, <uint32_t>len(frame))
    finally:
        free(copy)


cdef inline uint32_t _half_at(const uint8_t *at) noexcept nogil:
    return (<uint32_t>at[0] << 8) | at[1]


cdef inline uint32_t _word_at(const uint8_t *at) noexcept nogil:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef uint32_t bpf_run(const Instruction *program, const uint8_t *data, uint32_t length) noexcept nogil:
    """Return how many bytes of a frame are to be kept, 0 for none."""
    cdef uint32_t memory[MEMORY_WORDS]
    cdef const Instruction *at = program
    cdef uint32_t a = 0
    cdef uint32_t x = 0
    cdef uint32_t code, k
    cdef uint64_t place
    memset(memory, 0, sizeof(memory))
    while True:
        code = at.code
        k = at.k
        if code == _LD_W_ABS or code == _LD_W_IND:
            place = <uint64_t>k + (x if code == _LD_W_IND else 0)
            if place + 4 > length:
                return 0
            a = _word_at(data + place)
        elif code == _LD_H_ABS or code == _LD_H_IND:
            place = <uint64_t>k + (x if code == _LD_H_IND else 0)
            if place + 2 > length:
                return 0
            a = _half_at(data + place)
        elif code == _LD_B_ABS or code == _LD_B_IND:
            place = <uint64_t>k + (x if code == _LD_B_IND else 0)
            if place >= length:
                return 0
            a = data[place]
        elif code == _LDX_MSH:
            if k >= length:
                return 0
            x = (data[k] & 0x0F) * 4
        elif code == _LD_IMM:
            a = k
        elif code == _LD_MEM:
            a = memory[k]
        elif code == _LD_LEN:
            a = length
        elif code == _LDX_IMM:
            x = k
        elif code == _LDX_MEM:
            x = memory[k]
        elif code == _LDX_LEN:
            x = length
        elif code == _ST:
            memory[k] = a
        elif code == _STX:
            memory[k] = x
        elif code == _JA:
            at += k
        elif code == _JEQ_K:
            at += at.jt if a == k else at.jf
        elif code == _JEQ_X:
            at += at.jt if a == x else at.jf
        elif code == _JGT_K:
            at += at.jt if a > k else at.jf
        elif code == _JGT_X:
            at += at.jt if a > x else at.jf
        elif code == _JGE_K:
            at += at.jt if a >= k else at.jf
        elif code == _JGE_X:
            at += at.jt if a >= x else at.jf
        elif code == _JSET_K:
            at += at.jt if a & k else at.jf
        elif code == _JSET_X:
            at += at.jt if a & x else at.jf
        elif code == _ADD_K:
            a += k
        elif code == _ADD_X:
            a += x
        elif code == _SUB_K:
            a -= k
        elif code == _SUB_X:
            a -= x
        elif code == _MUL_K:
            a *= k
        elif code == _MUL_X:
            a *= x
        elif code == _DIV_K:
            a = a // k
        elif code == _DIV_X:
            if x == 0:
                return 0
            a = a // x
        elif code == _MOD_K:
            a = a % k
        elif code == _MOD_X:
            if x == 0:
                return 0
            a = a % x
        elif code == _OR_K:
            a |= k
        elif code == _OR_X:
            a |= x
        elif code == _AND_K:
            a &= k
        elif code == _AND_X:
            a &= x
        elif code == _XOR_K:
            a ^= k
        elif code == _XOR_X:
            a ^= x
        elif code == _LSH_K:
            a <<= k
        elif code == _LSH_X:
            a = a << x if x < _WORD_BITS else 0
        elif code == _RSH_K:
            a >>= k
        elif code == _RSH_X:
            a = a >> x if x < _WORD_BITS else 0
        elif code == _NEG:
            a = -a
        elif code == _TAX:
            x = a
        elif code == _RET_K:
            return k
        elif code == _RET_A:
            return a
        else:
            # _TXA, the one that is left.
            a = x
        at += 1
