"""A connected stream in which each frame comes behind its length."""

from libc.stdint cimport uint8_t, uint32_t

from umlab.engine._native.queue cimport Queue
from umlab.engine._native.slots cimport Slots


cdef enum:
    #: As umlab.switch.model.MAX_STREAM_LENGTH.
    MAX_STREAM_LENGTH = 69_632
    LENGTH_SIZE = 4
    #: Bytes that are read at once, as umlab.engine._pyframing.STREAM_READ_SIZE.
    STREAM_READ_SIZE = 65_536
    #: A frame that has not come whole, and what is read behind it.
    _ROOM = LENGTH_SIZE + MAX_STREAM_LENGTH + STREAM_READ_SIZE


cdef struct Stream:
    # Made and freed by control with its port; the engine's thread's meanwhile.  What was read and not
    # forwarded yet lies from `begin` to `end`.
    uint32_t begin
    uint32_t end
    # A length came that no frame has: nothing behind it can be understood.
    bint broken
    # Bytes of the queue's first frame, its length included, which are out already.
    uint32_t sent
    uint8_t data[_ROOM]


cdef ssize_t stream_read(Stream *stream, int fd) noexcept nogil
cdef int stream_take(Stream *stream, Slots *slots) noexcept nogil
cdef int stream_write(Stream *stream, int fd, Queue *queue) noexcept nogil
