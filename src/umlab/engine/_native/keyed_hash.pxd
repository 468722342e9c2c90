"""SipHash-1-3: a keyed hash, so that nobody who does not know the key can choose keys that collide.

Source: Aumasson and Bernstein, SipHash: a fast short-input PRF, with c=1 and d=3.
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy


cdef struct Key:
    uint64_t low
    uint64_t high


cdef struct _State:
    uint64_t v0
    uint64_t v1
    uint64_t v2
    uint64_t v3


cdef inline uint64_t _rotate(uint64_t value, int bits) noexcept nogil:
    return (value << bits) | (value >> (64 - bits))


cdef inline void _round(_State *state) noexcept nogil:
    state.v0 += state.v1
    state.v1 = _rotate(state.v1, 13) ^ state.v0
    state.v0 = _rotate(state.v0, 32)
    state.v2 += state.v3
    state.v3 = _rotate(state.v3, 16) ^ state.v2
    state.v0 += state.v3
    state.v3 = _rotate(state.v3, 21) ^ state.v0
    state.v2 += state.v1
    state.v1 = _rotate(state.v1, 17) ^ state.v2
    state.v2 = _rotate(state.v2, 32)


cdef inline void _start(_State *state, const Key *key) noexcept nogil:
    state.v0 = key.low ^ <uint64_t>0x736f6d6570736575
    state.v1 = key.high ^ <uint64_t>0x646f72616e646f6d
    state.v2 = key.low ^ <uint64_t>0x6c7967656e657261
    state.v3 = key.high ^ <uint64_t>0x7465646279746573


cdef inline void _absorb(_State *state, uint64_t word) noexcept nogil:
    state.v3 ^= word
    _round(state)
    state.v0 ^= word


cdef inline uint64_t _end(_State *state) noexcept nogil:
    state.v2 ^= 0xff
    _round(state)
    _round(state)
    _round(state)
    return state.v0 ^ state.v1 ^ state.v2 ^ state.v3


cdef inline uint64_t hash_mac(const Key *key, uint64_t mac) noexcept nogil:
    """Hash 6 bytes that lie in the low 48 bits of a little-endian word, and the VID that lies above them."""
    cdef _State state
    _start(&state, key)
    _absorb(&state, mac ^ <uint64_t>6 << 56)
    return _end(&state)


cdef inline uint64_t hash_bytes(const Key *key, const uint8_t *data, size_t size) noexcept nogil:
    """Hash any number of bytes."""
    cdef _State state
    cdef uint64_t word
    cdef size_t at = 0
    _start(&state, key)
    while size - at >= 8:
        memcpy(&word, data + at, 8)
        _absorb(&state, word)
        at += 8
    word = 0
    memcpy(&word, data + at, size - at)
    _absorb(&state, word | <uint64_t>(size & 0xff) << 56)
    return _end(&state)
