"""Captures as control sees them, and the memory that they live in."""

from umlab.engine._native.capture cimport CaptureRing, Place, Span
from umlab.engine._native.loop cimport Loop
from umlab.engine._native.owned cimport Attachment, Registry
from umlab.engine._native.tally cimport Tally


cdef class OpenCaptures


cdef class PortTally:
    # Lives as long as its capture.
    cdef Tally tally


cdef class NativeCapture:
    # `ring` is the engine's from the step that begins the capture to the one that ends it.
    cdef CaptureRing ring
    cdef int number
    # What the loop is part of, and what the engine's lock guards.
    cdef object _engine
    cdef OpenCaptures _open
    cdef object _reading
    cdef object _ports
    cdef dict _tallies

    cdef int admit(self, Attachment attachment) except -1
    cdef bytes _take(self, size_t most, bint consumed)
    cdef bytes _take_from_reader(self, size_t most, bint consumed)
    cdef Span _oldest(self, size_t most) noexcept
    cdef void _release(self, const Place *place) noexcept
    cdef bytes _take_by_steps(self, size_t most, bint consumed)


cdef class OpenCaptures:
    # `_loop` is the engine's, who set it.
    cdef Loop *_loop
    cdef object _control
    cdef Registry _attached
    cdef list _by_number

    cdef NativeCapture begin(self, order, engine)
    cdef int admit(self, Attachment attachment) except -1
    cdef int end(self, NativeCapture capture) except -1
    cdef int end_all(self) except -1
