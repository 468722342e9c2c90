"""Receiving a burst in as few system calls as its descriptor allows, without copying what is short."""

from libc.string cimport memcpy, memset

from umlab.engine._native.pool cimport (
    LARGE_ROOM,
    SMALL_ROOM,
    buffer_data,
    buffer_drop,
    pool_close,
    pool_open,
    pool_take,
)
from umlab.engine._native.header cimport MAX_HEADER, MAX_IP_HEADER
from umlab.engine._native.system cimport (
    CMSG_DATA,
    CMSG_FIRSTHDR,
    CMSG_NXTHDR,
    MSG_DONTWAIT,
    PACKET_AUXDATA,
    SOL_PACKET,
    TP_STATUS_VLAN_TPID_VALID,
    TP_STATUS_VLAN_VALID,
    cmsghdr,
    msghdr,
    readv,
    recvmmsg,
    tpacket_auxdata,
)


cdef enum:
    # 132 MiB and 257 MiB if every queue is full of frames that no other has; resident when used.
    _SMALL_BUFFERS = 65_536
    _LARGE_BUFFERS = 4096
    _SMALL_PER_CHUNK = 64
    _LARGE_PER_CHUNK = 8
    _CTAG = 0x8100


cdef bint slots_open(Slots *slots) noexcept nogil:
    """Make the pools and fill the slots; false if there is no memory, to be closed all the same."""
    cdef int i
    pool_open(&slots.small, SMALL_ROOM, _SMALL_BUFFERS, _SMALL_PER_CHUNK)
    pool_open(&slots.large, LARGE_ROOM, _LARGE_BUFFERS, _LARGE_PER_CHUNK)
    for i in range(BURST):
        slots.first[i] = pool_take(&slots.small)
        slots.spill[i] = pool_take(&slots.large)
        if slots.first[i] == NULL or slots.spill[i] == NULL:
            return False
        memset(&slots.headers[i], 0, sizeof(slots.headers[i]))
        slots.headers[i].msg_hdr.msg_iov = &slots.parts[2 * i]
    return True


cdef void slots_close(Slots *slots) noexcept nogil:
    """Give all buffers back; no queue holds one by now."""
    pool_close(&slots.small)
    pool_close(&slots.large)


cdef void _arrange(Slots *slots, int i) noexcept nogil:
    cdef iovec *parts = &slots.parts[2 * i]
    parts[0].iov_base = buffer_data(slots.first[i])
    parts[0].iov_len = min(slots.read_size, <size_t>SMALL_ROOM)
    parts[1].iov_base = buffer_data(slots.spill[i]) + SMALL_ROOM
    parts[1].iov_len = slots.read_size - parts[0].iov_len
    slots.headers[i].msg_hdr.msg_iovlen = 2 if parts[1].iov_len else 1


cdef void slots_arrange(Slots *slots, uint32_t max_frame) noexcept nogil:
    """Receive frames of up to ``max_frame`` bytes and their headers, and one more: a longer one is seen."""
    cdef int i
    slots.read_size = <size_t>max_frame + 1 + MAX_HEADER + MAX_IP_HEADER
    for i in range(BURST):
        _arrange(slots, i)


cdef int slots_receive(Slots *slots, int fd, bint is_device, int most) noexcept nogil:
    """Receive up to ``most`` messages; return how many, or -1 with errno set if there was none.

    The end of a file is an empty message, and the last of those from a device.
    """
    if is_device:
        return _read_device(slots, fd, most)
    return recvmmsg(fd, slots.headers, <unsigned int>most, MSG_DONTWAIT, NULL)


cdef int _read_device(Slots *slots, int fd, int most) noexcept nogil:
    cdef ssize_t size
    cdef int i
    for i in range(most):
        size = readv(fd, &slots.parts[2 * i], <int>slots.headers[i].msg_hdr.msg_iovlen)
        if size < 0:
            return i if i else -1
        slots.headers[i].msg_len = <unsigned int>size
        if size == 0:
            return i + 1
    return most


cdef int slots_receive_tagged(Slots *slots, int fd, int most) noexcept nogil:
    """Receive as ``slots_receive``, with the tag of each frame in ``tags``."""
    cdef msghdr *message
    cdef int count, i
    for i in range(most):
        slots.headers[i].msg_hdr.msg_control = slots.control[i]
        slots.headers[i].msg_hdr.msg_controllen = CONTROL_SIZE
    count = recvmmsg(fd, slots.headers, <unsigned int>most, MSG_DONTWAIT, NULL)
    for i in range(most):
        message = &slots.headers[i].msg_hdr
        if i < count:
            slots.tags[i] = _tag_of(message)
        message.msg_control = NULL
        message.msg_controllen = 0
    return count


cdef uint32_t _tag_of(msghdr *message) noexcept nogil:
    # Source: Linux include/uapi/linux/if_packet.h.
    cdef cmsghdr *control = CMSG_FIRSTHDR(message)
    cdef tpacket_auxdata *aux
    cdef uint32_t tpid
    while control != NULL:
        if control.cmsg_level == SOL_PACKET and control.cmsg_type == PACKET_AUXDATA:
            aux = <tpacket_auxdata *>CMSG_DATA(control)
            if aux.tp_status & TP_STATUS_VLAN_VALID:
                tpid = aux.tp_vlan_tpid if aux.tp_status & TP_STATUS_VLAN_TPID_VALID else _CTAG
                return tpid << 16 | aux.tp_vlan_tci
        control = CMSG_NXTHDR(message, control)
    return 0


cdef void slots_put(Slots *slots, int i, const uint8_t *data, uint32_t length) noexcept nogil:
    """Have slot ``i`` hold a copy of a frame, as if it had been received there; of one too long, the head."""
    cdef uint32_t held = min(length, <uint32_t>slots.read_size)
    memcpy(buffer_data(slots.first[i]), data, min(held, <uint32_t>SMALL_ROOM))
    if held > SMALL_ROOM:
        memcpy(buffer_data(slots.spill[i]) + SMALL_ROOM, data + SMALL_ROOM, held - SMALL_ROOM)
    slots.headers[i].msg_len = held


cdef int slots_receive_from(Slots *slots, int fd) noexcept nogil:
    """Receive a burst with each message's sender in ``senders``; return as ``slots_receive`` does."""
    cdef int count, i
    for i in range(BURST):
        slots.headers[i].msg_hdr.msg_name = &slots.senders[i]
        slots.headers[i].msg_hdr.msg_namelen = sizeof(sockaddr_un)
    count = recvmmsg(fd, slots.headers, BURST, MSG_DONTWAIT, NULL)
    for i in range(BURST):
        slots.headers[i].msg_hdr.msg_name = NULL
    return count


cdef Frame *slots_frame(Slots *slots, int i, uint32_t ingress, int64_t now_ns) noexcept nogil:
    """Make the descriptor of what slot ``i`` received."""
    cdef Frame *frame = &slots.frames[i]
    cdef Buffer *buffer = slots.first[i]
    frame.length = slots.headers[i].msg_len
    if frame.length > SMALL_ROOM:
        buffer = slots.spill[i]
        memcpy(buffer_data(buffer), buffer_data(slots.first[i]), SMALL_ROOM)
    frame.buffer = buffer
    frame.data = buffer_data(buffer)
    frame.ingress = ingress
    frame.received_at = now_ns
    frame.vid = frame.csum_start = frame.csum_offset = frame.gso_type = frame.gso_size = 0
    frame.skip = 0
    frame.tag = 0
    return frame


cdef void slots_refill(Slots *slots, int count) noexcept nogil:
    """Leave to the queues what they hold of the burst: such a slot takes another buffer."""
    cdef bint held
    cdef int i
    for i in range(count):
        held = False
        # The pool has one to spare: `pool_can_spare` saw to it before a queue held anything.
        if slots.first[i].references > 1:
            buffer_drop(slots.first[i])
            slots.first[i] = pool_take(&slots.small)
            held = True
        if slots.spill[i].references > 1:
            buffer_drop(slots.spill[i])
            slots.spill[i] = pool_take(&slots.large)
            held = True
        if held:
            _arrange(slots, i)
