"""Control's steps: each is short, and is done by the engine's thread, or by control if there is none."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from umlab.engine._native.capture cimport Span, capture_copy, capture_release, capture_span
from umlab.engine._native.core cimport (
    DROP_TAIL,
    CorePort,
    core_expire,
    core_forget_some,
    core_purge_some,
    core_put_port_event,
    core_restore,
    core_shrink_some,
)
from umlab.engine._native.egress cimport egress_drop, egress_enqueue, egress_send_touched
from umlab.engine._native.fdb cimport NEVER, fdb_enlarge
from umlab.engine._native.loop cimport loop_now, loop_use_tables
from umlab.engine._native.pause cimport pauses_forget
from umlab.engine._native.pool cimport Pool, buffer_data, buffer_drop, pool_can_spare, pool_take
from umlab.engine._native.port cimport (
    endpoint_unwatch,
    endpoint_watch,
    port_update_down,
    shared_join,
    shared_leave,
)
from umlab.engine._native.queue cimport queue_at, queue_enlarge, queue_pop
from umlab.engine._native.ring cimport PORT_ATTACHED, PORT_DETACHED, ring_enlarge
from umlab.engine._native.system cimport EPOLLIN


cdef enum:
    # Bytes that a capture's blocks are copied by: a frame waits for that, some 30 microseconds.
    _COPIED_AT_ONCE = 262_144


cdef bint step_attach(Loop *loop, void *argument) noexcept nogil:
    """Watch a port's descriptor, and its shared receiver if that is new; take the tables that name the port."""
    cdef PortOrder *order = <PortOrder *>argument
    cdef Port *port = order.port
    cdef SharedReceiver *shared = order.shared
    port.mask = 0 if shared != NULL or port.monitor else EPOLLIN
    order.error = endpoint_watch(&port.endpoint, loop.epoll_fd, port.mask)
    if order.error:
        return False
    if shared != NULL:
        if shared.port_count == 0:
            order.error = endpoint_watch(&shared.endpoint, loop.epoll_fd, EPOLLIN)
            if order.error:
                endpoint_unwatch(&port.endpoint, loop.epoll_fd)
                return False
        shared_join(shared, port)
        port.shared = shared
    port_update_down(port)
    loop_use_tables(loop, order.tables)
    core_put_port_event(&loop.core, PORT_ATTACHED, port.core.home.port_no, loop_now(loop), 0)
    return False


cdef bint step_detach(Loop *loop, void *argument) noexcept nogil:
    """Take the tables that do not name the port, and drop what it has; its stations go some at a time."""
    cdef PortOrder *order = <PortOrder *>argument
    cdef Port *port = order.port
    if not order.begun:
        order.begun = True
        if port.shared != NULL:
            shared_leave(port.shared, port)
            if port.shared.port_count == 0 and not port.shared.closed:
                endpoint_unwatch(&port.shared.endpoint, loop.epoll_fd)
        pauses_forget(&loop.pauses, port)
        if not port.closed:
            endpoint_unwatch(&port.endpoint, loop.epoll_fd)
        while port.queue.count:
            queue_pop(&port.queue)
        port.core.home.leaving = True
        order.left = port.core.home.count
        loop_use_tables(loop, order.tables)
    if core_forget_some(&loop.core, &port.core.home, &order.left):
        return True
    core_put_port_event(&loop.core, PORT_DETACHED, port.core.home.port_no, loop_now(loop), 0)
    return False


cdef bint step_flush(Loop *loop, void *argument) noexcept nogil:
    """Forget some of the stations that a port had at the beginning."""
    cdef FlushOrder *order = <FlushOrder *>argument
    cdef uint32_t before
    cdef bint more
    if not order.begun:
        order.begun = True
        order.left = order.home.count
    before = order.left
    more = core_forget_some(&loop.core, order.home, &order.left)
    order.flushed += before - order.left
    return more


cdef bint step_copy_fdb(Loop *loop, void *argument) noexcept nogil:
    """Copy some of the stations, by their places in memory, with the port of each."""
    cdef FdbOrder *order = <FdbOrder *>argument
    cdef uint32_t end = min(order.first + STEP, loop.core.fdb.made + 1)
    cdef Station *station
    cdef uint32_t index
    order.count = 0
    for index in range(order.first, end):
        station = loop.core.fdb.stations + index
        if station.home != NULL and not station.home.leaving:
            order.stations[order.count] = station[0]
            order.ports[order.count] = station.home.port_no
            order.count += 1
    order.first = end
    return end <= loop.core.fdb.made


cdef bint step_restore(Loop *loop, void *argument) noexcept nogil:
    """Learn some stations that another switch knew."""
    cdef RestoreOrder *order = <RestoreOrder *>argument
    cdef int64_t now_ns = loop_now(loop)
    cdef Station *near = NULL
    cdef Station *station
    cdef Restored *entry
    cdef uint32_t i
    core_expire(&loop.core, now_ns)
    for i in range(order.count):
        entry = &order.entries[i]
        station = core_restore(&loop.core, entry.mac, entry.home, entry.last_seen_ns, now_ns, near)
        if station != NULL:
            near = station
    return False


cdef bint step_configure(Loop *loop, void *argument) noexcept nogil:
    """Take other tables, with room for what they allow; stations that have none go some at a time."""
    cdef ConfigureOrder *order = <ConfigureOrder *>argument
    if not order.begun:
        order.begun = True
        if not fdb_enlarge(&loop.core.fdb, order.tables.fdb_capacity):
            order.failed = True
            return False
        loop_use_tables(loop, order.tables)
        # Stations may be dead by now that were alive.
        loop.core.quiet_until_ns = NEVER
        loop.core.purging = order.first > 0
    # Both at once where few are left: in between the timer would take for aged what has no place any more.
    if loop.core.purging and core_purge_some(&loop.core, &order.first):
        return True
    return core_shrink_some(&loop.core)


cdef bint step_enlarge_queue(Loop *loop, void *argument) noexcept nogil:
    """Let a port's queue have larger memory, and hand the smaller over."""
    cdef QueueOrder *order = <QueueOrder *>argument
    order.slots = queue_enlarge(&order.port.queue, order.slots, order.mask)
    return False


cdef bint step_enlarge_ring(Loop *loop, void *argument) noexcept nogil:
    """Let the events have larger memory, and hand the smaller over."""
    cdef RingOrder *order = <RingOrder *>argument
    ring_enlarge(&loop.core.events, &order.records, order.capacity)
    return False


cdef bint step_begin_capture(Loop *loop, void *argument) noexcept nogil:
    """Let a capture see some of the ports that it has a tally for."""
    cdef WatchOrder *order = <WatchOrder *>argument
    cdef uint32_t end = min(order.first + STEP, loop.core.tables.all_count)
    cdef CorePort *port
    cdef uint32_t i
    loop.captures.rings[order.number] = order.ring
    for i in range(order.first, end):
        port = loop.core.tables.ports[i]
        if port.tallies[order.number] != NULL:
            port.captures |= 1 << order.number
    order.first = end
    return end < loop.core.tables.all_count


cdef bint step_end_capture(Loop *loop, void *argument) noexcept nogil:
    """Let a capture see some of the ports no more."""
    cdef WatchOrder *order = <WatchOrder *>argument
    cdef uint32_t end = min(order.first + STEP, loop.core.tables.all_count)
    cdef CorePort *port
    cdef uint32_t i
    for i in range(order.first, end):
        port = loop.core.tables.ports[i]
        port.captures &= ~(1 << order.number)
    order.first = end
    return end < loop.core.tables.all_count


cdef bint step_find_blocks(Loop *loop, void *argument) noexcept nogil:
    """Find out what a capture holds that overwrites."""
    cdef TakeOrder *order = <TakeOrder *>argument
    order.place = order.ring.tail
    order.end = order.ring.head.position
    return False


cdef bint step_take_blocks(Loop *loop, void *argument) noexcept nogil:
    """Copy some of what a capture held; what has been overwritten since is passed over."""
    cdef TakeOrder *order = <TakeOrder *>argument
    cdef uint64_t left = order.most - order.taken
    cdef Span span
    if order.place.position < order.ring.tail.position:
        order.place = order.ring.tail
    span = capture_span(order.ring, &order.place, order.end, min(left, <uint64_t>_COPIED_AT_ONCE))
    if span.size == 0 or (order.taken and span.size > left):
        return False
    capture_copy(order.ring, &order.place, &span, order.to + order.taken)
    order.taken += span.size
    order.place = span.after
    if order.consumed:
        capture_release(order.ring, &order.place)
    return order.taken < order.most


cdef bint step_take_punts(Loop *loop, void *argument) noexcept nogil:
    """Hand over what waits for the control protocols."""
    cdef PuntOrder *order = <PuntOrder *>argument
    cdef Frame *frame
    cdef Punted *punted
    order.count = 0
    while loop.core.punts.count:
        frame = queue_at(&loop.core.punts, 0)
        punted = &order.frames[order.count]
        punted.at_ns = frame.received_at
        punted.port_no = frame.ingress
        punted.length = min(frame.length, <uint32_t>PUNT_SIZE)
        memcpy(punted.data, frame.data, punted.length)
        order.count += 1
        queue_pop(&loop.core.punts)
    return False


cdef bint step_send(Loop *loop, void *argument) noexcept nogil:
    """Send a frame of control's own."""
    cdef SendOrder *order = <SendOrder *>argument
    cdef Pool *pool = &loop.slots.small
    cdef Frame frame
    memset(&frame, 0, sizeof(frame))
    frame.length = order.length
    if not pool_can_spare(pool, order.port.queue.count):
        frame.data = <uint8_t *>order.data
        egress_drop(&loop.egress, order.port, &frame, DROP_TAIL)
        return False
    frame.buffer = pool_take(pool)
    frame.data = buffer_data(frame.buffer)
    frame.received_at = loop_now(loop)
    memcpy(frame.data, order.data, order.length)
    egress_enqueue(&loop.egress, order.port, &frame)
    egress_send_touched(&loop.egress)
    buffer_drop(frame.buffer)
    return False


cdef bint step_stop(Loop *loop, void *argument) noexcept nogil:
    """Make the thread end after this step."""
    loop.stopping = True
    return False
