"""Reading and writing a stream: frames are cut out of what came, and what is half out is remembered."""

from libc.string cimport memmove, memset

from umlab.engine._native.pool cimport BURST
from umlab.engine._native.queue cimport queue_at
from umlab.engine._native.slots cimport slots_put
from umlab.engine._native.system cimport MSG_DONTWAIT, MSG_NOSIGNAL, iovec, msghdr, recv, sendmsg
from umlab.engine._native.tag cimport MOST_PARTS, TAG_SIZE, frame_parts, frame_size


cdef uint32_t _length_at(const uint8_t *at) noexcept nogil:
    return (<uint32_t>at[0] << 24) | (<uint32_t>at[1] << 16) | (<uint32_t>at[2] << 8) | at[3]


cdef ssize_t stream_read(Stream *stream, int fd) noexcept nogil:
    """Read what there is; return how many bytes, 0 at the end, or -1 with errno set."""
    cdef ssize_t size
    if stream.begin:
        memmove(stream.data, stream.data + stream.begin, stream.end - stream.begin)
        stream.end -= stream.begin
        stream.begin = 0
    size = recv(fd, stream.data + stream.end, STREAM_READ_SIZE, MSG_DONTWAIT)
    if size > 0:
        stream.end += <uint32_t>size
    return size


cdef int stream_take(Stream *stream, Slots *slots) noexcept nogil:
    """Put whole frames into the slots, a burst of them at most, and return how many.

    Fewer than a burst: no more are whole, or the stream is broken.
    """
    cdef uint32_t length
    cdef int count = 0
    while count < BURST and stream.end - stream.begin >= LENGTH_SIZE:
        length = _length_at(stream.data + stream.begin)
        if length > MAX_STREAM_LENGTH:
            stream.broken = True
            break
        if stream.end - stream.begin < LENGTH_SIZE + length:
            break
        if length:
            slots_put(slots, count, stream.data + stream.begin + LENGTH_SIZE, length)
            count += 1
        stream.begin += LENGTH_SIZE + length
    return count


cdef int stream_write(Stream *stream, int fd, Queue *queue) noexcept nogil:
    """Write up to a burst from a queue; return how many frames are out whole, or -1 with errno set."""
    cdef iovec parts[(1 + MOST_PARTS) * BURST]
    cdef uint8_t lengths[BURST][LENGTH_SIZE]
    cdef uint8_t tags[BURST][TAG_SIZE]
    cdef msghdr message
    cdef uint32_t skip = stream.sent
    cdef uint32_t count = min(queue.count, <uint32_t>BURST)
    cdef uint32_t used = 0
    cdef uint32_t length, i
    cdef ssize_t size
    for i in range(count):
        length = frame_size(queue_at(queue, i))
        lengths[i][0] = <uint8_t>(length >> 24)
        lengths[i][1] = <uint8_t>(length >> 16)
        lengths[i][2] = <uint8_t>(length >> 8)
        lengths[i][3] = <uint8_t>length
        parts[used].iov_base = lengths[i]
        parts[used].iov_len = LENGTH_SIZE
        used += 1 + frame_parts(queue_at(queue, i), tags[i], parts + used + 1)
    # What is out already is less than the first frame.
    for i in range(min(used, <uint32_t>(1 + MOST_PARTS))):
        size = min(<size_t>skip, parts[i].iov_len)
        parts[i].iov_base = <uint8_t *>parts[i].iov_base + size
        parts[i].iov_len -= size
        skip -= <uint32_t>size
    memset(&message, 0, sizeof(message))
    message.msg_iov = parts
    message.msg_iovlen = used
    size = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL)
    if size < 0:
        return -1
    stream.sent += <uint32_t>size
    for i in range(count):
        length = frame_size(queue_at(queue, i))
        if stream.sent < LENGTH_SIZE + length:
            return i
        stream.sent -= LENGTH_SIZE + length
    return count
