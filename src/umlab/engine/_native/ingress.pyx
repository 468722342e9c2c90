"""Ingress: a burst is read from one descriptor, frames are made of it, and each goes where the core says."""

from libc.errno cimport EAGAIN, ECONNRESET, EIO, EMSGSIZE, EPROTO, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memcpy, memset

from umlab.engine._native.capture cimport INBOUND, captures_note
from umlab.engine._native.core cimport (
    DROP,
    DROP_BAD_HEADER,
    FLOOD,
    MAX_MIRRORS,
    UNICAST,
    Core,
    CorePort,
    ForwardingTables,
    Lookup,
    Verdict,
    core_admit,
    core_prepare,
    core_receive,
    count_drop,
)
from umlab.engine._native.egress cimport egress_enqueue
from umlab.engine._native.header cimport header_take_off, tag_put_back
from umlab.engine._native.link cimport link_close
from umlab.engine._native.loop cimport loop_now
from umlab.engine._native.pool cimport BURST, Frame
from umlab.engine._native.port cimport ADDRESS_SIZE, DATAGRAM, DEVICE, PACKET, SEQPACKET, STREAM, shared_find
from umlab.engine._native.slots cimport (
    slots_frame,
    slots_length,
    slots_receive,
    slots_receive_from,
    slots_receive_tagged,
    slots_refill,
)
from umlab.engine._native.stream cimport Stream, stream_read, stream_take
from umlab.engine._native.tag cimport NO_VID, is_member, shape


cdef void ingress_receive(Loop *loop, Port *port, bint hung_up) noexcept nogil:
    """Forward one burst; after a hang-up, close the link once nothing is left to read."""
    cdef int64_t now_ns = loop_now(loop)
    cdef int left = BURST
    cdef int count, error_number, i
    if port.framing == STREAM:
        _receive_stream(loop, port, hung_up)
        return
    while left > 0:
        if port.framing == PACKET:
            count = slots_receive_tagged(&loop.slots, port.endpoint.fd, left)
        else:
            count = slots_receive(&loop.slots, port.endpoint.fd, port.framing == DEVICE, left)
        if count < 0:
            error_number = errno
            if error_number == EAGAIN:
                port.read_errors = 0
                if hung_up:
                    link_close(loop, port, port.error_number)
                return
            if not _survives(port, error_number):
                link_close(loop, port, error_number if error_number else EIO)
                return
            left -= 1
            continue
        for i in range(count):
            if slots_length(&loop.slots, i) == 0 and (hung_up or not _is_message_socket(port)):
                _forward(loop, port, i, now_ns)
                link_close(loop, port, port.error_number)
                return
        port.read_errors = 0
        _forward(loop, port, count, now_ns)
        if count < left and not hung_up:
            return
        left -= count


cdef void _receive_stream(Loop *loop, Port *port, bint hung_up) noexcept nogil:
    # Forwards what one read brings, however many frames these are: epoll knows nothing of them any more.
    cdef int64_t now_ns = loop_now(loop)
    cdef Stream *stream = port.stream
    cdef ssize_t size = stream_read(stream, port.endpoint.fd)
    cdef int count
    if size < 0:
        if errno != EAGAIN:
            link_close(loop, port, errno)
        elif hung_up:
            link_close(loop, port, 0)
        return
    if size == 0:
        link_close(loop, port, EPROTO if stream.end else 0)
        return
    count = stream_take(stream, &loop.slots)
    _forward(loop, port, count, now_ns)
    while count == BURST:
        count = stream_take(stream, &loop.slots)
        _forward(loop, port, count, now_ns)
        # Where these went says nothing of those before them.
        loop.only_egress = NULL
    if stream.broken:
        link_close(loop, port, EMSGSIZE)


cdef bint _is_message_socket(Port *port) noexcept nogil:
    # Whether there is no end that could be read.
    return port.framing == DATAGRAM or port.framing == PACKET


cdef bint _survives(Port *port, int error_number) noexcept nogil:
    # Whether a failed read leaves the descriptor usable; reading has cleared the error.  A connected
    # datagram socket reports there what became of an earlier send.  A SOCK_SEQPACKET socket reports
    # once that its peer went without reading all, before what the peer still sent.  A burst of nothing
    # but errors is no such thing.
    if _is_message_socket(port):
        port.read_errors += 1
        return port.read_errors < BURST
    if port.framing == SEQPACKET and error_number == ECONNRESET and port.error_number == 0:
        port.error_number = error_number
        return True
    return False


cdef void _forward(Loop *loop, Port *port, int count, int64_t now_ns) noexcept nogil:
    cdef int i
    for i in range(count):
        loop.ingress[i] = &port.core
    _forward_burst(loop, count, now_ns)


cdef void ingress_receive_shared(Loop *loop, SharedReceiver *shared) noexcept nogil:
    """Forward one burst of what several ports receive."""
    cdef int64_t now_ns = loop_now(loop)
    cdef uint8_t address[ADDRESS_SIZE]
    cdef int count = slots_receive_from(&loop.slots, shared.endpoint.fd)
    cdef int i
    for i in range(count):
        loop.ingress[i] = <CorePort *>shared.sole
        if _take_address(
            address, loop.slots.senders[i].sun_path, loop.slots.headers[i].msg_hdr.msg_namelen
        ):
            loop.ingress[i] = <CorePort *>shared_find(shared, address)
        if loop.ingress[i] == NULL:
            loop.core.unknown_sender += 1
    if count > 0:
        _forward_burst(loop, count, now_ns)


cdef bint _take_address(uint8_t *address, const char *path, uint32_t size) noexcept nogil:
    # Copies a sender's address, if it is one that a port can have.  The size counts the two bytes of the
    # family as well; an unbound sender has no more, and a port's abstract name has all 108 bytes.
    if size <= 2 or (path[0] == 0 and size - 2 < ADDRESS_SIZE):
        return False
    memset(address, 0, ADDRESS_SIZE)
    memcpy(address, path, min(size - 2, <uint32_t>ADDRESS_SIZE))
    return True


cdef inline bint _unwrap(Loop *loop, Port *port, Frame *frame, int i) noexcept nogil:
    # Makes a frame of what slot ``i`` received; false if it came without the header that belongs there.
    if port.header != NULL:
        return header_take_off(port.header, frame)
    if port.framing == PACKET and loop.slots.tags[i] and frame.length >= 12:
        tag_put_back(frame, loop.slots.tags[i])
    return True


cdef void _forward_burst(Loop *loop, int count, int64_t now_ns) noexcept nogil:
    # Forwards what lies in the first slots, each from its own ingress port, NULL for no port's.
    cdef Core *core = &loop.core
    cdef Frame *frame
    cdef Lookup *lookup
    cdef CorePort *ingress
    cdef CorePort *egress = NULL
    cdef Port *only = NULL
    cdef bint mixed = False
    cdef Verdict verdict
    cdef int i
    for i in range(count):
        ingress = loop.ingress[i]
        frame = slots_frame(&loop.slots, i, ingress.home.port_no if ingress != NULL else 0, now_ns)
        if ingress == NULL:
            continue
        lookup = &loop.lookups[i]
        if _unwrap(loop, <Port *>ingress, frame, i):
            lookup.admitted = core_admit(core, ingress, frame, lookup)
        else:
            lookup.admitted = False
            lookup.drop = DROP_BAD_HEADER
            count_drop(ingress, DROP_BAD_HEADER)
    core_prepare(core, loop.slots.frames, count, loop.lookups)
    for i in range(count):
        ingress = loop.ingress[i]
        if ingress == NULL:
            continue
        frame = &loop.slots.frames[i]
        lookup = &loop.lookups[i]
        verdict = core_receive(core, ingress, frame, lookup, &egress) if lookup.admitted else DROP
        if ingress.captures:
            captures_note(&loop.captures, ingress, frame, INBOUND, lookup.drop, now_ns)
        if verdict == UNICAST:
            mixed = mixed or (only != NULL and only != <Port *>egress)
            only = <Port *>egress
        elif verdict == FLOOD:
            mixed = True
            egress = NULL
        else:
            continue
        _send_copies(loop, ingress, egress, frame, lookup.tag)
    slots_refill(&loop.slots, count)
    loop.only_egress = NULL if mixed else only
    loop.burst_size = count


cdef void _send_copies(
    Loop *loop, CorePort *ingress, CorePort *egress, Frame *frame, uint32_t came_with
) noexcept nogil:
    # Queues a frame at one port, or for NULL at all that a flood goes to, and its copies behind that.
    cdef ForwardingTables *tables = loop.core.tables
    cdef uint8_t mirrors = 0
    cdef CorePort *port
    cdef uint32_t number
    if egress != NULL:
        _send_formed(loop, egress, frame, came_with)
        mirrors = egress.rules.mirror_out
    elif tables.transparent:
        for number in range(tables.port_count):
            if tables.ports[number] != ingress:
                egress_enqueue(&loop.egress, <Port *>tables.ports[number], frame)
                mirrors |= tables.rules[number].mirror_out
    else:
        for number in range(tables.port_count):
            port = tables.ports[number]
            if port != ingress and is_member(&tables.rules[number], frame.vid):
                _send_formed(loop, port, frame, came_with)
                mirrors |= tables.rules[number].mirror_out
    # Copies go out as the frame came.
    frame.skip = 0
    frame.tag = 0
    for number in range(tables.port_count, tables.port_count + tables.monitor_count):
        egress_enqueue(&loop.egress, <Port *>tables.ports[number], frame)
    if tables.mirrored:
        mirrors |= ingress.rules.mirror_in | tables.mirrored_vids[frame.vid]
        for number in range(MAX_MIRRORS):
            if mirrors >> number & 1 and tables.destinations[number] != NULL:
                egress_enqueue(&loop.egress, <Port *>tables.destinations[number], frame)


cdef inline void _send_formed(Loop *loop, CorePort *port, Frame *frame, uint32_t came_with) noexcept nogil:
    if frame.vid != NO_VID:
        shape(frame, port.rules, came_with)
    egress_enqueue(&loop.egress, <Port *>port, frame)
