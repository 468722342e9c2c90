"""Where one burst is received: buffers, and the frames that lie in them; all the engine's thread's."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from umlab.engine._native.pool cimport BURST, Buffer, Frame, Pool
from umlab.engine._native.system cimport iovec, mmsghdr, sockaddr_un


cdef enum:
    #: A control message with struct tpacket_auxdata, and room to spare.
    CONTROL_SIZE = 64


cdef struct Slots:
    # A frame is read into a small buffer, and what does not fit there to where a large one would have
    # it: so the head alone is copied, and of long frames only.
    Pool small
    Pool large
    size_t read_size
    Buffer *first[BURST]
    Buffer *spill[BURST]
    Frame frames[BURST]
    iovec parts[2 * BURST]
    mmsghdr headers[BURST]
    sockaddr_un senders[BURST]
    # Where the kernel writes beside a frame what it has taken out of it; `tags` is what that was, its TPID
    # in the high half, 0 for nothing.
    unsigned char control[BURST][CONTROL_SIZE]
    uint32_t tags[BURST]


cdef bint slots_open(Slots *slots) noexcept nogil
cdef void slots_close(Slots *slots) noexcept nogil
cdef void slots_arrange(Slots *slots, uint32_t max_frame) noexcept nogil
cdef int slots_receive(Slots *slots, int fd, bint is_device, int most) noexcept nogil
cdef int slots_receive_tagged(Slots *slots, int fd, int most) noexcept nogil
cdef void slots_put(Slots *slots, int i, const uint8_t *data, uint32_t length) noexcept nogil
cdef int slots_receive_from(Slots *slots, int fd) noexcept nogil
cdef void slots_refill(Slots *slots, int count) noexcept nogil


cdef inline uint32_t slots_length(Slots *slots, int i) noexcept nogil:
    return slots.headers[i].msg_len
cdef Frame *slots_frame(Slots *slots, int i, uint32_t ingress, int64_t now_ns) noexcept nogil
