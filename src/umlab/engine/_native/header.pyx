"""Headers that a link has in front of every frame, and tags that the kernel hands over beside a frame."""

from libc.string cimport memcmp, memcpy, memmove


cdef bint header_take_off(const Header *header, Frame *frame) noexcept nogil:
    """Take the header off what was received; false if it is not the one that belongs there."""
    cdef uint32_t begin = 0
    cdef uint32_t size
    if header.ip_in_front and frame.length:
        begin = (frame.data[0] & 0x0F) * 4
    size = begin + header.rx_size + header.rx_skip
    if frame.length < size or memcmp(frame.data + begin, header.rx, header.rx_size) != 0:
        return False
    frame.data += size
    frame.length -= size
    return True


cdef void header_write(const Header *header, uint8_t *to, uint32_t ahead) noexcept nogil:
    """Write what goes in front of the frame that comes after ``ahead`` others."""
    cdef uint32_t value
    cdef uint32_t at = header.tx_size
    memcpy(to, header.tx, header.tx_size)
    if header.counted:
        value = header.counter + ahead
        at -= 4
        to[at] = <uint8_t>(value >> 24)
        to[at + 1] = <uint8_t>(value >> 16)
        to[at + 2] = <uint8_t>(value >> 8)
        to[at + 3] = <uint8_t>value


cdef void tag_put_back(Frame *frame, uint32_t tag) noexcept nogil:
    """Put a tag, its TPID in the high half, behind the addresses, in the room that a buffer has in front."""
    cdef uint8_t *data = frame.data - 4
    memmove(data, frame.data, 12)
    data[12] = <uint8_t>(tag >> 24)
    data[13] = <uint8_t>(tag >> 16)
    data[14] = <uint8_t>(tag >> 8)
    data[15] = <uint8_t>tag
    frame.data = data
    frame.length += 4
