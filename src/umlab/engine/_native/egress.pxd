"""The way out of the switch: queues, batches, and what becomes of what a guest does not take."""

from libc.stdint cimport uint8_t, uint32_t

from umlab.engine._native.capture cimport Captures
from umlab.engine._native.header cimport MAX_HEADER
from umlab.engine._native.pool cimport BURST, Frame
from umlab.engine._native.port cimport Port
from umlab.engine._native.system cimport iovec, mmsghdr
from umlab.engine._native.tag cimport MOST_PARTS, TAG_SIZE


cdef struct Egress:
    # All the engine's thread's.  `touched` lists the ports that have frames of the present burst, in the
    # order in which they had the first; the next comes to `touched_end`.
    int epoll_fd
    uint32_t queue_depth
    Captures *captures
    Port *touched
    Port **touched_end
    # Of each message: what goes in front of the frame, where its link has that, the frame in up to three
    # parts, and the tag that may be one of them.
    uint8_t fronts[BURST][MAX_HEADER]
    uint8_t tags[BURST][TAG_SIZE]
    iovec parts[BURST][1 + MOST_PARTS]
    mmsghdr headers[BURST]


cdef void egress_open(Egress *egress, int epoll_fd, Captures *captures) noexcept nogil
cdef void egress_enqueue(Egress *egress, Port *port, Frame *frame) noexcept nogil
cdef void egress_send_touched(Egress *egress) noexcept nogil
cdef void egress_drain(Egress *egress, Port *port) noexcept nogil
cdef void egress_purge(Egress *egress, Port *port) noexcept nogil
cdef void egress_drop(Egress *egress, Port *port, const Frame *frame, int reason) noexcept nogil
