"""What the engine's thread tells control: events, and frames for the control protocols."""

from libc.stdint cimport uint64_t

from umlab.engine._native.loop cimport Loop


cdef class News:
    cdef Loop *_loop
    # Events out of the ring that nobody has taken yet.
    cdef object _waiting

    cdef int drain(self) except -1
    cdef int make_room(self, uint64_t ports) except -1
    cdef list take_events(self)
    cdef list take_punts(self)
