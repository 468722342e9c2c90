"""What control has told ports to do with tags, and frames as they leave: see ``umlab.switch.tag``."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from umlab.engine._native.pool cimport Frame
from umlab.engine._native.system cimport iovec


cdef enum:
    #: Words of a bitmap that has a bit for each VID.
    VID_WORDS = 64
    #: Bytes of both addresses, and of a tag behind them.
    TAG_AT = 12
    TAG_SIZE = 4
    #: What a frame consists of at most when it leaves: addresses, tag, the rest.
    MOST_PARTS = 3
    #: No VID of a VLAN has this value.
    NO_VID = 0

cdef enum Policy:
    #: In the order of umlab.switch.model.ReservedPolicy.
    TRANSPARENT
    BRIDGE
    PEER


cdef struct VidBits:
    # The bitmaps of one umlab.switch.vlan.PortVlan; shared by all ports that have it.  Made by control, never
    # changed, freed when no table refers to it.
    uint64_t admitted[VID_WORDS]
    uint64_t tagged[VID_WORDS]
    uint64_t members[VID_WORDS]


cdef struct PortRules:
    # What a port is told to be; part of a table, and never changed.  Without `vids` it is transparent.
    const VidBits *vids
    uint16_t pvid
    uint16_t tpid
    Policy reserved
    # Bit by bit the destinations that get copies of what comes from here, and of what goes there.
    uint8_t mirror_in
    uint8_t mirror_out
    # It gets the copies of a mirror session, and takes no part in switching.
    bint is_destination


cdef int frame_parts(const Frame *frame, uint8_t *tag, iovec *parts) noexcept nogil


cdef inline bint has_vid(const uint64_t *bits, uint32_t vid) noexcept nogil:
    return (bits[vid >> 6] >> (vid & 63)) & 1


cdef inline bint is_member(const PortRules *rules, uint32_t vid) noexcept nogil:
    """Tell whether frames of a VLAN, or of the transparent ports for ``NO_VID``, may leave from a port."""
    if rules.is_destination:
        return False
    return vid == NO_VID if rules.vids == NULL else has_vid(rules.vids.members, vid)


cdef inline uint32_t frame_size(const Frame *frame) noexcept nogil:
    """Return a frame's bytes as it leaves."""
    return frame.length - frame.skip + (TAG_SIZE if frame.tag else 0)


cdef inline void shape(Frame *frame, const PortRules *rules, uint32_t came_with) noexcept nogil:
    """Have a frame of a VLAN leave as a port sends it; ``came_with`` is its tag, TPID in the high half, or 0."""
    cdef uint32_t tag = 0
    if has_vid(rules.vids.tagged, frame.vid):
        tag = <uint32_t>rules.tpid << 16 | (came_with & 0xF000) | frame.vid
    if tag == came_with:
        frame.skip = 0
        frame.tag = 0
    else:
        frame.skip = TAG_SIZE if came_with else 0
        frame.tag = tag
