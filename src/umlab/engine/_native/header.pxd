"""What lies in front of a frame, or beside it, in what a descriptor carries."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from umlab.engine._native.pool cimport Frame


cdef enum:
    #: As umlab.switch.model.MAX_HEADER.
    MAX_HEADER = 32
    #: The longest IPv4 header, which a raw socket puts in front.
    MAX_IP_HEADER = 60


cdef struct Header:
    # Part of a port: written by control before the engine has the port, the counter by the engine's
    # thread afterwards.
    uint8_t rx[MAX_HEADER]
    uint32_t rx_size
    uint32_t rx_skip
    bint ip_in_front
    uint8_t tx[MAX_HEADER]
    # With the counter, if there is one.
    uint32_t tx_size
    bint counted
    uint32_t counter


cdef bint header_take_off(const Header *header, Frame *frame) noexcept nogil
cdef void header_write(const Header *header, uint8_t *to, uint32_t ahead) noexcept nogil
cdef void tag_put_back(Frame *frame, uint32_t tag) noexcept nogil
