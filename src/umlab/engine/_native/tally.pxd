"""What the captures have done with the frames of a port."""

from libc.stdint cimport uint32_t, uint64_t


cdef enum:
    #: As umlab.engine.contract.MAX_CAPTURES.
    MAX_CAPTURES = 8


cdef struct Tally:
    # Of one capture and one port number.  Made by control and freed with the capture; written by the engine's
    # thread alone as long as a port leads here, each count a word that control reads meanwhile.
    uint32_t interface
    uint64_t seen
    uint64_t accepted
    uint64_t lost
    # What no block has told of the lost ones yet.
    uint64_t unsaid
