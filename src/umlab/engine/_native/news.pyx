"""Taking what the engine's thread has put aside for control; with the engine's lock held."""

from collections import deque

from libc.stdint cimport uint32_t
from libc.stdlib cimport free, malloc

from umlab.engine._native.loop cimport loop_do
from umlab.engine._native.ring cimport (
    MOST_FULL_EVENTS,
    EventRecord,
    ring_next,
    ring_take_lost,
)
from umlab.engine._native.step cimport (
    PuntOrder,
    RingOrder,
    step_enlarge_ring,
    step_take_punts,
)
from umlab.engine._native.system cimport (
    __ATOMIC_RELAXED,
    __ATOMIC_RELEASE,
    __ATOMIC_SEQ_CST,
    eventfd_read,
    load_u32,
    load_u64,
    store_u32,
    store_u64,
)
from umlab.engine._native.value cimport event_of
from umlab.switch.core import Punt


cdef class News:
    """Events and punted frames on their way to who takes them."""

    def __cinit__(self):
        self._waiting = deque()

    cdef int drain(self) except -1:
        """Make room for events that come in while control is at work."""
        cdef EventRecord record
        while ring_next(&self._loop.core.events, &record):
            self._waiting.append(event_of(&record))
        return 0

    cdef int make_room(self, uint64_t ports) except -1:
        """Have room for every event about so many ports that can come before the ring is drained again."""
        cdef RingOrder order
        order.capacity = self._loop.core.events.capacity
        while order.capacity < MOST_FULL_EVENTS + 2 * ports:
            order.capacity *= 2
        if order.capacity == self._loop.core.events.capacity:
            return 0
        order.records = <EventRecord *>malloc(order.capacity * sizeof(EventRecord))
        if order.records == NULL:
            raise MemoryError
        with nogil:
            loop_do(self._loop, step_enlarge_ring, &order)
        free(order.records)
        return 0

    cdef list take_events(self):
        """Return the events since the last call, oldest first, and make the descriptor quiet."""
        cdef EventRecord record
        cdef uint64_t value
        if self._loop.event_fd >= 0:
            # In this order: what comes in between makes the descriptor readable again.
            eventfd_read(self._loop.event_fd, &value)
            value = load_u64(&self._loop.core.punted, __ATOMIC_RELAXED)
            store_u64(&self._loop.punts_told, value, __ATOMIC_RELAXED)
            store_u32(&self._loop.signalled, 0, __ATOMIC_SEQ_CST)
        self.drain()
        store_u64(&self._loop.core.events.taken, self._loop.core.events.drained, __ATOMIC_RELEASE)
        if ring_take_lost(&self._loop.core.events, &record):
            self._waiting.append(event_of(&record))
        events = list(self._waiting)
        self._waiting.clear()
        return events

    cdef list take_punts(self):
        """Return the frames for the control protocols since the last call, oldest first."""
        cdef PuntOrder *order
        cdef uint32_t i
        if not load_u32(&self._loop.core.punts.count, __ATOMIC_RELAXED):
            return []
        order = <PuntOrder *>malloc(sizeof(PuntOrder))
        if order == NULL:
            raise MemoryError
        try:
            with nogil:
                loop_do(self._loop, step_take_punts, order)
            return [
                Punt(
                    order.frames[i].at_ns,
                    order.frames[i].port_no,
                    (<char *>order.frames[i].data)[: order.frames[i].length],
                )
                for i in range(order.count)
            ]
        finally:
            free(order)
