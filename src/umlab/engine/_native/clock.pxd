"""The engine's clock, whichever it is."""

from libc.stdint cimport int64_t

#: Reads the clock that its argument leads to.
ctypedef int64_t (*ReadClock)(void *source) noexcept nogil


cdef struct Clock:
    ReadClock read
    void *source


cdef inline int64_t clock_now(const Clock *clock) noexcept nogil:
    return clock.read(clock.source)
