"""Frames as they leave: a tag is taken out or put in by leaving bytes aside, never by moving them."""


cdef int frame_parts(const Frame *frame, uint8_t *tag, iovec *parts) noexcept nogil:
    """Say where the bytes of a frame lie as it leaves, and return in how many parts.

    Args:
        frame: The frame.
        tag: Room for a tag, to live as long as the parts.
        parts: ``MOST_PARTS`` of them.
    """
    cdef int count = 1
    parts[0].iov_base = frame.data
    parts[0].iov_len = frame.length
    if not frame.skip and not frame.tag:
        return 1
    parts[0].iov_len = TAG_AT
    if frame.tag:
        tag[0] = <uint8_t>(frame.tag >> 24)
        tag[1] = <uint8_t>(frame.tag >> 16)
        tag[2] = <uint8_t>(frame.tag >> 8)
        tag[3] = <uint8_t>frame.tag
        parts[1].iov_base = tag
        parts[1].iov_len = TAG_SIZE
        count = 2
    parts[count].iov_base = frame.data + TAG_AT + frame.skip
    parts[count].iov_len = frame.length - TAG_AT - frame.skip
    return count + 1
