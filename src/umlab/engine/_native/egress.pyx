"""Egress: a burst's frames are queued, then sent in batches; what a guest has no room for waits, bounded.

A guest's socket holds few frames, so a burst overruns it: the queue takes the rest, and is drained
whenever the guest has read.  A frame that finds the queue full is dropped, from the tail.
"""

from libc.errno cimport EAGAIN, ECONNREFUSED, ECONNRESET, ENOBUFS, ENOENT, ENOTCONN, EPIPE, errno
from libc.stdint cimport int64_t
from libc.string cimport memset

from umlab.engine._native.capture cimport OUTBOUND, captures_note
from umlab.engine._native.clock cimport clock_now
from umlab.engine._native.core cimport (
    DROP_PEER_GONE,
    DROP_REFUSED,
    DROP_TAIL,
    NOT_DROPPED,
    count_drop,
    count_sent,
)
from umlab.engine._native.header cimport Header, header_write
from umlab.engine._native.pool cimport pool_can_spare
from umlab.engine._native.port cimport DEVICE, STREAM, endpoint_watch_for, port_interest, port_update_down
from umlab.engine._native.queue cimport Queue, queue_at, queue_pop, queue_push
from umlab.engine._native.stream cimport stream_write
from umlab.engine._native.system cimport MSG_DONTWAIT, MSG_NOSIGNAL, sendmmsg, writev
from umlab.engine._native.tag cimport frame_parts, frame_size


cdef void egress_open(Egress *egress, int epoll_fd, Captures *captures) noexcept nogil:
    """Be ready to send."""
    cdef int i
    egress.epoll_fd = epoll_fd
    egress.captures = captures
    egress.touched = NULL
    egress.touched_end = &egress.touched
    for i in range(BURST):
        memset(&egress.headers[i], 0, sizeof(egress.headers[i]))
        egress.parts[i][0].iov_base = egress.fronts[i]


cdef void egress_enqueue(Egress *egress, Port *port, Frame *frame) noexcept nogil:
    """Let a frame wait in a port's queue until the burst ends, or count why it cannot."""
    cdef Queue *queue = &port.queue
    if port.closed:
        egress_drop(egress, port, frame, DROP_PEER_GONE)
        return
    if not _has_room(egress, queue, frame):
        if not port.waiting:
            # It holds this burst's frames, which nobody has tried to send yet.
            _send(egress, port)
        if not _has_room(egress, queue, frame):
            if port.waiting:
                egress_drop(egress, port, frame, DROP_TAIL)
            else:
                _send_alone(egress, port, frame)
            return
    queue_push(queue, frame)
    if not port.touched:
        port.touched = True
        port.next_touched = NULL
        egress.touched_end[0] = port
        egress.touched_end = &port.next_touched


cdef bint _has_room(Egress *egress, Queue *queue, Frame *frame) noexcept nogil:
    return queue.count < egress.queue_depth and pool_can_spare(frame.buffer.pool, queue.count)


cdef void _send_alone(Egress *egress, Port *port, Frame *frame) noexcept nogil:
    # Others hold all buffers: what this guest does not take at once cannot wait for it, unless half of it
    # is out already; so a stream is offered nothing when even the buffers for that are used up.
    if port.stream != NULL and frame.buffer.pool.spare <= BURST:
        egress_drop(egress, port, frame, DROP_TAIL)
        return
    queue_push(&port.queue, frame)
    _send(egress, port)
    if port.queue.count and not (port.stream != NULL and port.stream.sent):
        _drop_first(egress, port, DROP_TAIL)


cdef void egress_send_touched(Egress *egress) noexcept nogil:
    """Send what the burst has left in the queues."""
    cdef Port *port = egress.touched
    while port != NULL:
        port.touched = False
        if not port.waiting:
            _send(egress, port)
        port = port.next_touched
    egress.touched = NULL
    egress.touched_end = &egress.touched


cdef int _write_some(Egress *egress, Port *port) noexcept nogil:
    # Sends up to a burst from the queue; returns how many frames were taken, or -1 with errno set.
    cdef Queue *queue = &port.queue
    cdef int sent, i
    if port.framing == DEVICE:
        i = frame_parts(queue_at(queue, 0), egress.tags[0], &egress.parts[0][1])
        sent = 1 if writev(port.endpoint.fd, &egress.parts[0][1], i) >= 0 else -1
    elif port.framing == STREAM:
        sent = stream_write(port.stream, port.endpoint.fd, queue)
    else:
        sent = _write_messages(egress, port)
    if sent > 0 and port.core.captures:
        _note_sent(egress, port, sent)
    for i in range(sent):
        count_sent(&port.core, frame_size(queue_at(queue, 0)))
        queue_pop(queue)
    return sent


cdef void _note_sent(Egress *egress, Port *port, int count) noexcept nogil:
    cdef int64_t now_ns = clock_now(egress.captures.clock)
    cdef int i
    for i in range(count):
        captures_note(egress.captures, &port.core, queue_at(&port.queue, i), OUTBOUND, NOT_DROPPED, now_ns)


cdef int _write_messages(Egress *egress, Port *port) noexcept nogil:
    cdef Header *header = port.header
    cdef int count = <int>min(port.queue.count, <uint32_t>BURST)
    # A message begins at its second part where nothing goes in front of the frame.
    cdef int first = 1 if header == NULL else 0
    cdef int sent, parts, i
    for i in range(count):
        parts = frame_parts(queue_at(&port.queue, i), egress.tags[i], &egress.parts[i][1])
        egress.headers[i].msg_hdr.msg_iov = &egress.parts[i][first]
        egress.headers[i].msg_hdr.msg_iovlen = 1 - first + parts
        if header != NULL:
            header_write(header, egress.fronts[i], i)
            egress.parts[i][0].iov_len = header.tx_size
    sent = sendmmsg(port.endpoint.fd, egress.headers, count, MSG_DONTWAIT | MSG_NOSIGNAL)
    if header != NULL and sent > 0:
        header.counter += sent
    return sent


cdef void _send(Egress *egress, Port *port) noexcept nogil:
    # Sends what was queued in this burst; what the guest has no room for waits until it has.
    while port.queue.count:
        if _write_some(egress, port) >= 0:
            continue
        if errno == EAGAIN or errno == ENOBUFS:
            port.waiting = True
            endpoint_watch_for(&port.endpoint, egress.epoll_fd, port_interest(port))
            return
        _refuse(egress, port, errno)


cdef void egress_drain(Egress *egress, Port *port) noexcept nogil:
    """Send a burst of what has waited, to a port that may be written to."""
    cdef int left = BURST
    cdef int sent
    while left > 0 and port.queue.count:
        sent = _write_some(egress, port)
        if sent < 0:
            if errno == EAGAIN or (errno == ENOBUFS and port.stream != NULL):
                return
            # ENOBUFS as well: epoll says "writable" all the while, and to wait would be to spin.
            _refuse(egress, port, errno)
            sent = 1
        left -= sent
    if not port.queue.count:
        port.waiting = False
        endpoint_watch_for(&port.endpoint, egress.epoll_fd, port_interest(port))


cdef void _refuse(Egress *egress, Port *port, int error_number) noexcept nogil:
    # Counts a frame that a descriptor would not take, and listens no more to one that lost its guest:
    # the kernel undoes the connection of a datagram socket whose peer is gone; from then on anybody
    # could send to it.
    cdef bint gone = error_number in (ECONNREFUSED, ENOTCONN, EPIPE, ENOENT, ECONNRESET)
    if gone:
        _drop_first(egress, port, DROP_PEER_GONE)
    else:
        _drop_first(egress, port, DROP_TAIL if error_number == ENOBUFS else DROP_REFUSED)
    if port.stream != NULL:
        port.stream.sent = 0
    if gone and port.is_unix_datagram and port.mask:
        port.mask = 0
        port_update_down(port)
        endpoint_watch_for(&port.endpoint, egress.epoll_fd, port_interest(port))


cdef void egress_purge(Egress *egress, Port *port) noexcept nogil:
    """Drop what waits for a port whose guest is gone."""
    while port.queue.count:
        _drop_first(egress, port, DROP_PEER_GONE)


cdef void _drop_first(Egress *egress, Port *port, int reason) noexcept nogil:
    egress_drop(egress, port, queue_at(&port.queue, 0), reason)
    queue_pop(&port.queue)


cdef void egress_drop(Egress *egress, Port *port, const Frame *frame, int reason) noexcept nogil:
    """Count a frame that does not leave from a port."""
    count_drop(&port.core, reason)
    if port.core.captures:
        captures_note(
            egress.captures, &port.core, frame, OUTBOUND, reason, clock_now(egress.captures.clock)
        )
