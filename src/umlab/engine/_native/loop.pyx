"""The engine's thread: bursts in, the core's verdicts, queues out; between bursts, control's steps.

Control never holds a lock that the thread takes.  It puts one step into the mailbox, wakes the thread
and sleeps until the step is done; a long task is many steps, with bursts in between.
"""

from libc.errno cimport EAGAIN, ECONNRESET, EINTR, EIO, EMSGSIZE, EPROTO, errno
from libc.stdint cimport INT64_MAX, uint8_t
from libc.string cimport memcpy, memset

from umlab.engine._native.core cimport (
    DROP_BAD_HEADER,
    DROP_PEER_GONE,
    FLOOD,
    MAX_MIRRORS,
    UNICAST,
    Verdict,
    core_admit,
    core_expire,
    core_next_timer,
    core_prepare,
    core_put_port_event,
    core_receive,
    count_drop,
)
from umlab.engine._native.egress cimport egress_drain, egress_enqueue, egress_open, egress_send_touched
from umlab.engine._native.header cimport header_take_off, tag_put_back
from umlab.engine._native.pause cimport pause, pauses_end_for, pauses_forget, pauses_expire
from umlab.engine._native.pool cimport Frame
from umlab.engine._native.port cimport (
    ADDRESS_SIZE,
    DATAGRAM,
    DEVICE,
    PACKET,
    PORT,
    SEQPACKET,
    STREAM,
    WAKE,
    SharedReceiver,
    endpoint_unwatch,
    endpoint_watch,
    port_update_down,
    shared_find,
)
from umlab.engine._native.queue cimport queue_pop
from umlab.engine._native.ring cimport LINK_CLOSED, ring_has_untaken
from umlab.engine._native.slots cimport (
    slots_arrange,
    slots_close,
    slots_frame,
    slots_length,
    slots_open,
    slots_receive,
    slots_receive_from,
    slots_receive_tagged,
    slots_refill,
)
from umlab.engine._native.stream cimport Stream, stream_read, stream_take
from umlab.engine._native.tag cimport NO_VID, is_member, shape
from umlab.engine._native.system cimport (
    __ATOMIC_ACQUIRE,
    __ATOMIC_RELEASE,
    __ATOMIC_SEQ_CST,
    EFD_CLOEXEC,
    EFD_NONBLOCK,
    EPOLL_CLOEXEC,
    EPOLLERR,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    SO_ERROR,
    SOL_SOCKET,
    close,
    epoll_create1,
    epoll_event,
    epoll_wait,
    eventfd,
    eventfd_read,
    eventfd_write,
    exchange_pointer,
    exchange_u32,
    getsockopt,
    load_pointer,
    load_u32,
    load_u64,
    nanosleep,
    sem_destroy,
    sem_init,
    sem_post,
    sem_wait,
    store_pointer,
    store_u32,
    store_u64,
    timespec,
)


cdef enum:
    # Epoll's milliseconds are an int, and a timer may lie years ahead.
    _LONGEST_WAIT_MS = 3_600_000
    # Who sends fewer frames at once is no reason for frames to be dropped.
    _LEAST_BURST_TO_PAUSE = 8


# Start and end.


cdef bint loop_open(Loop *loop) noexcept nogil:
    """Make what the thread needs to run; false if there is no memory or descriptor left, to be closed then."""
    sem_init(&loop.done, 0, 0)
    loop.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    loop.wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    loop.event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)
    if loop.epoll_fd < 0 or loop.wake_fd < 0 or loop.event_fd < 0:
        return False
    loop.wake.kind = WAKE
    loop.wake.fd = loop.wake_fd
    if endpoint_watch(&loop.wake, loop.epoll_fd, EPOLLIN) or not slots_open(&loop.slots):
        return False
    egress_open(&loop.egress, loop.epoll_fd)
    loop.pauses.epoll_fd = loop.epoll_fd
    loop_use_tables(loop, loop.core.tables)
    return True


cdef void loop_close(Loop *loop) noexcept nogil:
    """Give back what ``loop_open`` made; no port is left by now."""
    if loop.epoll_fd >= 0:
        close(loop.epoll_fd)
    if loop.wake_fd >= 0:
        close(loop.wake_fd)
    if loop.event_fd >= 0:
        close(loop.event_fd)
    loop.epoll_fd = loop.wake_fd = loop.event_fd = -1
    sem_destroy(&loop.done)
    # What waits there lies in the pools.
    loop.core.punts.head = loop.core.punts.count = 0
    slots_close(&loop.slots)


cdef void loop_use_tables(Loop *loop, ForwardingTables *tables) noexcept nogil:
    """Go by other tables from the next burst on."""
    cdef uint32_t number
    loop.core.tables = tables
    for number in range(tables.all_count):
        tables.ports[number].rules = &tables.rules[number]
    loop.egress.queue_depth = tables.queue_depth
    slots_arrange(&loop.slots, tables.max_frame)


# Control.


cdef void _do_steps(Loop *loop) noexcept nogil:
    cdef Command *command
    if load_pointer(&loop.mailbox, __ATOMIC_SEQ_CST) == NULL:
        return
    command = <Command *>exchange_pointer(&loop.mailbox, NULL, __ATOMIC_SEQ_CST)
    if command != NULL:
        command.more = command.step(loop, command.argument)
        _signal_events(loop)
        sem_post(&loop.done)


cdef bint _step_aside(Loop *loop, Command *command) noexcept nogil:
    # No thread takes steps: whoever calls is alone with the loop.
    store_pointer(&loop.mailbox, NULL, __ATOMIC_SEQ_CST)
    command.more = command.step(loop, command.argument)
    _signal_events(loop)
    return command.more


cdef bint loop_call(Loop *loop, Step step, void *argument) noexcept nogil:
    """Have one step done between two bursts and return whether there is more to do.

    One thread calls at a time.
    """
    cdef Command command
    command.step = step
    command.argument = argument
    command.more = False
    store_pointer(&loop.mailbox, &command, __ATOMIC_SEQ_CST)
    if not load_u32(&loop.alive, __ATOMIC_SEQ_CST):
        if exchange_pointer(&loop.mailbox, NULL, __ATOMIC_SEQ_CST) != NULL:
            return _step_aside(loop, &command)
    else:
        eventfd_write(loop.wake_fd, 1)
    while sem_wait(&loop.done) and errno == EINTR:
        pass
    return command.more


cdef void loop_await_burst_end(Loop *loop) noexcept nogil:
    """Wait until the burst that frames may be moving in, if any, has been counted."""
    cdef uint64_t burst = load_u64(&loop.bursts, __ATOMIC_ACQUIRE)
    while burst & 1 and load_u64(&loop.bursts, __ATOMIC_ACQUIRE) == burst:
        _nap()


cdef void loop_await_end(Loop *loop) noexcept nogil:
    """Wait until the thread, which has been told to stop, touches nothing any more."""
    while load_u32(&loop.alive, __ATOMIC_SEQ_CST):
        _nap()


cdef void _nap() noexcept nogil:
    cdef timespec span
    span.tv_sec = 0
    span.tv_nsec = 10_000
    nanosleep(&span, NULL)


cdef void _signal_events(Loop *loop) noexcept nogil:
    if (
        loop.event_fd >= 0
        and (ring_has_untaken(&loop.core.events) or loop.core.punts.count)
        # A full barrier: if control has not seen the event, this sees that control has looked.
        and not exchange_u32(&loop.signalled, 1, __ATOMIC_SEQ_CST)
    ):
        eventfd_write(loop.event_fd, 1)


# The frame loop.


cdef void loop_run(Loop *loop) noexcept nogil:
    """Move frames until a step of control's says to stop."""
    cdef epoll_event ready[READY_AT_ONCE]
    cdef uint64_t epoch
    cdef int count, i
    while not loop.stopping:
        count = epoll_wait(loop.epoll_fd, ready, READY_AT_ONCE, _handle_timer(loop))
        epoch = loop.core.tables.epoch
        for i in range(count):
            _do_steps(loop)
            # What epoll said before a step may be about another port by now.
            if loop.stopping or loop.core.tables.epoch != epoch:
                break
            _serve(loop, <Endpoint *>ready[i].data.ptr, ready[i].events)
        _do_steps(loop)
    store_u32(&loop.alive, 0, __ATOMIC_SEQ_CST)
    _do_steps(loop)


cdef int _handle_timer(Loop *loop) noexcept nogil:
    # Does what the timers ask; returns for how many milliseconds nothing needs to be done, -1 for ever.
    cdef int pause_ms = pauses_expire(&loop.pauses)
    cdef int64_t at_ns = core_next_timer(&loop.core)
    cdef int64_t now_ns
    cdef int span_ms
    if at_ns == INT64_MAX:
        return pause_ms
    now_ns = loop_now(loop)
    if at_ns > now_ns:
        span_ms = <int>min((at_ns - now_ns + 999_999) // 1_000_000, <int64_t>_LONGEST_WAIT_MS)
        return span_ms if pause_ms < 0 else min(span_ms, pause_ms)
    core_expire(&loop.core, now_ns)
    _signal_events(loop)
    return 0


cdef void _serve(Loop *loop, Endpoint *endpoint, uint32_t events) noexcept nogil:
    cdef uint64_t value
    if endpoint.kind == WAKE:
        eventfd_read(loop.wake_fd, &value)
        return
    store_u64(&loop.bursts, loop.bursts + 1, __ATOMIC_SEQ_CST)
    loop.only_egress = NULL
    if endpoint.kind == PORT:
        _serve_port(loop, <Port *>endpoint.owner, events)
    elif events & (EPOLLHUP | EPOLLERR):
        _close_shared(loop, <SharedReceiver *>endpoint.owner)
    else:
        _receive_shared(loop, <SharedReceiver *>endpoint.owner)
    egress_send_touched(&loop.egress)
    if endpoint.kind == PORT and loop.only_egress != NULL:
        _pause_if_full(loop, <Port *>endpoint.owner, loop.only_egress)
    store_u64(&loop.bursts, loop.bursts + 1, __ATOMIC_RELEASE)
    _signal_events(loop)


cdef void _pause_if_full(Loop *loop, Port *sender, Port *receiver) noexcept nogil:
    cdef uint32_t depth = loop.egress.queue_depth
    if (
        loop.burst_size >= _LEAST_BURST_TO_PAUSE
        and receiver.queue.count > depth - depth // 4
        and not sender.closed
    ):
        pause(&loop.pauses, sender, receiver)


cdef void _serve_port(Loop *loop, Port *port, uint32_t events) noexcept nogil:
    # A device that is in error stays so; a socket's error is gone when it is read.
    cdef uint32_t final = EPOLLHUP | EPOLLERR if port.framing == DEVICE else EPOLLHUP
    if port.closed:
        # By something earlier in what epoll said at once.
        return
    if events & EPOLLOUT:
        port.stuck = False
        egress_drain(&loop.egress, port)
        if loop.pauses.first != NULL and port.queue.count <= loop.egress.queue_depth // 2:
            pauses_end_for(&loop.pauses, port)
    if events & ~<uint32_t>EPOLLOUT:
        if port.mask & EPOLLIN:
            _receive(loop, port, (events & final) != 0)
        else:
            _mend(loop, port, (events & final) != 0)


cdef void _mend(Loop *loop, Port *port, bint hung_up) noexcept nogil:
    # Takes the error off a descriptor that is never read, lest epoll report it for ever.
    cdef int error_number = 0
    cdef uint32_t size = sizeof(error_number)
    if port.framing != DEVICE:
        getsockopt(port.endpoint.fd, SOL_SOCKET, SO_ERROR, &error_number, &size)
    if hung_up:
        loop_close_link(loop, port, error_number)


cdef void loop_close_link(Loop *loop, Port *port, int error_number) noexcept nogil:
    """Serve a port's descriptor no more; the port stays, and its frames are dropped."""
    port.closed = True
    pauses_forget(&loop.pauses, port)
    endpoint_unwatch(&port.endpoint, loop.epoll_fd)
    while port.queue.count:
        count_drop(&port.core, DROP_PEER_GONE)
        queue_pop(&port.queue)
    port_update_down(port)
    core_put_port_event(&loop.core, LINK_CLOSED, port.core.home.port_no, loop_now(loop), error_number)


cdef void _close_shared(Loop *loop, SharedReceiver *shared) noexcept nogil:
    # Its transport has shut it down: neither it is served any more, nor the ports behind it.
    cdef ForwardingTables *tables = loop.core.tables
    cdef Port *port
    cdef uint32_t i
    shared.closed = True
    endpoint_unwatch(&shared.endpoint, loop.epoll_fd)
    for i in range(tables.all_count):
        port = <Port *>tables.ports[i]
        if port.shared == shared and not port.closed:
            loop_close_link(loop, port, 0)


# Ingress.


cdef void _receive(Loop *loop, Port *port, bint hung_up) noexcept nogil:
    # Forwards one burst; after a hang-up, closes the link once nothing is left to read.
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
                    loop_close_link(loop, port, port.error_number)
                return
            if not _survives(port, error_number):
                loop_close_link(loop, port, error_number if error_number else EIO)
                return
            left -= 1
            continue
        for i in range(count):
            if slots_length(&loop.slots, i) == 0 and (hung_up or not _is_message_socket(port)):
                _forward(loop, port, i, now_ns)
                loop_close_link(loop, port, port.error_number)
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
            loop_close_link(loop, port, errno)
        elif hung_up:
            loop_close_link(loop, port, 0)
        return
    if size == 0:
        loop_close_link(loop, port, EPROTO if stream.end else 0)
        return
    count = stream_take(stream, &loop.slots)
    _forward(loop, port, count, now_ns)
    while count == BURST:
        count = stream_take(stream, &loop.slots)
        _forward(loop, port, count, now_ns)
        # Where these went says nothing of those before them.
        loop.only_egress = NULL
    if stream.broken:
        loop_close_link(loop, port, EMSGSIZE)


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


cdef void _receive_shared(Loop *loop, SharedReceiver *shared) noexcept nogil:
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
        if not _unwrap(loop, <Port *>ingress, frame, i):
            count_drop(ingress, DROP_BAD_HEADER)
            loop.ingress[i] = NULL
        elif not core_admit(core, ingress, frame, &loop.lookups[i]):
            loop.ingress[i] = NULL
    core_prepare(core, loop.slots.frames, count, loop.lookups)
    for i in range(count):
        ingress = loop.ingress[i]
        if ingress == NULL:
            continue
        frame = &loop.slots.frames[i]
        verdict = core_receive(core, ingress, frame, &loop.lookups[i], &egress)
        if verdict == UNICAST:
            mixed = mixed or (only != NULL and only != <Port *>egress)
            only = <Port *>egress
        elif verdict == FLOOD:
            mixed = True
            egress = NULL
        else:
            continue
        _send_copies(loop, ingress, egress, frame, loop.lookups[i].tag)
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
