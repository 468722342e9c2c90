"""The way out of the switch: queues, batches, and what becomes of what a guest does not take."""

from libc.stdint cimport uint32_t

from umlab.engine._native.pool cimport BURST, Frame
from umlab.engine._native.port cimport Port
from umlab.engine._native.system cimport iovec, mmsghdr


cdef struct Egress:
    # All the engine's thread's.  `touched` lists the ports that have frames of the present burst.
    int epoll_fd
    uint32_t queue_depth
    Port *touched
    iovec parts[BURST]
    mmsghdr headers[BURST]


cdef void egress_open(Egress *egress, int epoll_fd) noexcept nogil
cdef void egress_enqueue(Egress *egress, Port *port, Frame *frame) noexcept nogil
cdef void egress_send_touched(Egress *egress) noexcept nogil
cdef void egress_drain(Egress *egress, Port *port) noexcept nogil
