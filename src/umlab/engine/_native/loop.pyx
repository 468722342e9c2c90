"""The engine's thread: bursts in, the core's verdicts, queues out; between bursts, control's steps.

Control never holds a lock that the thread takes.  It puts one step into the mailbox, wakes the thread
and sleeps until the step is done; a long task is many steps, with bursts in between.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport INT64_MAX

from umlab.engine._native.core cimport core_expire, core_next_timer
from umlab.engine._native.egress cimport egress_drain, egress_open, egress_send_touched
from umlab.engine._native.ingress cimport ingress_receive, ingress_receive_shared
from umlab.engine._native.link cimport link_close, link_close_shared
from umlab.engine._native.pause cimport pause, pauses_end_for, pauses_expire
from umlab.engine._native.port cimport DEVICE, PORT, WAKE, SharedReceiver, endpoint_watch
from umlab.engine._native.ring cimport ring_has_untaken
from umlab.engine._native.slots cimport slots_arrange, slots_close, slots_open
from umlab.engine._native.system cimport (
    __ATOMIC_ACQUIRE,
    __ATOMIC_RELAXED,
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
    loop.captures.clock = &loop.clock
    egress_open(&loop.egress, loop.epoll_fd, &loop.captures)
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


cdef void loop_do(Loop *loop, Step step, void *argument) noexcept nogil:
    """Have every step of a task done, with bursts in between."""
    while loop_call(loop, step, argument):
        pass


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
        and (
            ring_has_untaken(&loop.core.events)
            or loop.core.punted > load_u64(&loop.punts_told, __ATOMIC_RELAXED)
        )
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
        link_close_shared(loop, <SharedReceiver *>endpoint.owner)
    else:
        ingress_receive_shared(loop, <SharedReceiver *>endpoint.owner)
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
            ingress_receive(loop, port, (events & final) != 0)
        else:
            _mend(loop, port, (events & final) != 0)


cdef void _mend(Loop *loop, Port *port, bint hung_up) noexcept nogil:
    # Takes the error off a descriptor that is never read, lest epoll report it for ever.
    cdef int error_number = 0
    cdef uint32_t size = sizeof(error_number)
    if port.framing != DEVICE:
        getsockopt(port.endpoint.fd, SOL_SOCKET, SO_ERROR, &error_number, &size)
    if hung_up:
        link_close(loop, port, error_number)
