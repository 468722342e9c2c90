"""The event ring; bounded as ``umlab.switch.events.EventQueue`` is, and equal to it in what it loses."""

from libc.stdlib cimport free, malloc
from libc.string cimport memset

from umlab.engine._native.system cimport (
    __ATOMIC_ACQUIRE,
    __ATOMIC_RELAXED,
    __ATOMIC_RELEASE,
    __ATOMIC_SEQ_CST,
    add_u64,
    exchange_u64,
    load_u64,
    store_u64,
)


cdef bint ring_open(EventRing *ring, uint64_t capacity) noexcept nogil:
    """Make an empty ring of a power of two of records; false if there is no memory."""
    memset(ring, 0, sizeof(EventRing))
    ring.records = <EventRecord *>malloc(capacity * sizeof(EventRecord))
    ring.capacity = capacity
    return ring.records != NULL


cdef void ring_close(EventRing *ring) noexcept nogil:
    """Give the memory back."""
    free(ring.records)
    ring.records = NULL


cdef void ring_enlarge(EventRing *ring, EventRecord **records, uint64_t capacity) noexcept nogil:
    """Move to larger memory and hand the smaller over; neither side may be at work meanwhile."""
    cdef EventRecord *larger = records[0]
    cdef uint64_t at
    for at in range(ring.drained, ring.produced):
        larger[at & (capacity - 1)] = ring.records[at & (ring.capacity - 1)]
    records[0] = ring.records
    ring.records = larger
    ring.capacity = capacity


cdef bint _push(EventRing *ring, EventRecord *record) noexcept nogil:
    cdef uint64_t at = ring.produced
    if at - load_u64(&ring.drained, __ATOMIC_ACQUIRE) >= ring.capacity:
        return False
    ring.records[at & (ring.capacity - 1)] = record[0]
    store_u64(&ring.produced, at + 1, __ATOMIC_RELEASE)
    return True


cdef void _lose(EventRing *ring, uint64_t count, int64_t at_ns) noexcept nogil:
    store_u64(<uint64_t *>&ring.lost_at_ns, <uint64_t>at_ns, __ATOMIC_RELAXED)
    add_u64(&ring.lost, count, __ATOMIC_SEQ_CST)


cdef void _settle(EventRing *ring) noexcept nogil:
    cdef EventRecord record
    if load_u64(&ring.lost, __ATOMIC_RELAXED) and ring_take_lost(ring, &record) and not _push(ring, &record):
        _lose(ring, record.value, record.at_ns)


cdef void ring_put_bounded(EventRing *ring, EventRecord record, uint64_t most) noexcept nogil:
    """Add an event that guests can cause; it is counted as lost when ``most`` wait."""
    if ring.produced - load_u64(&ring.taken, __ATOMIC_ACQUIRE) >= most:
        _lose(ring, 1, record.at_ns)
        return
    _settle(ring)
    if not _push(ring, &record):
        _lose(ring, 1, record.at_ns)


cdef void ring_put_certain(EventRing *ring, EventRecord record) noexcept nogil:
    """Add an event about a port; control sees to it that there is room (see ``MOST_FULL_EVENTS``)."""
    _settle(ring)
    if not _push(ring, &record):
        _lose(ring, 1, record.at_ns)


cdef bint ring_next(EventRing *ring, EventRecord *record) noexcept nogil:
    """Copy the oldest event for control and free its place; false when there is none."""
    cdef uint64_t at = ring.drained
    if at == load_u64(&ring.produced, __ATOMIC_ACQUIRE):
        return False
    record[0] = ring.records[at & (ring.capacity - 1)]
    store_u64(&ring.drained, at + 1, __ATOMIC_RELEASE)
    return True


cdef bint ring_take_lost(EventRing *ring, EventRecord *record) noexcept nogil:
    """Make the event that tells of those that were lost since the last one; false when none was."""
    cdef int64_t at_ns = <int64_t>load_u64(<uint64_t *>&ring.lost_at_ns, __ATOMIC_RELAXED)
    cdef uint64_t count = exchange_u64(&ring.lost, 0, __ATOMIC_SEQ_CST)
    memset(record, 0, sizeof(EventRecord))
    record.kind = EVENTS_LOST
    record.at_ns = at_ns
    record.value = count
    return count > 0


cdef bint ring_has_untaken(EventRing *ring) noexcept nogil:
    """Tell the engine's thread whether there is an event to take."""
    return ring.produced != load_u64(&ring.taken, __ATOMIC_RELAXED) or ring.lost > 0
