"""Events on their way from the engine's thread to control: one writer, one reader, no lock."""

from libc.stdint cimport int64_t, uint32_t, uint64_t


cdef enum:
    #: As many as umlab.switch.events.MAX_WAITING_EVENTS: events about stations that wait for a reader.
    MOST_STATION_EVENTS = 4096
    #: The same of events that tell of a full table, which guests can cause as well.
    MOST_FULL_EVENTS = 8192

cdef enum EventKind:
    PORT_ATTACHED
    PORT_DETACHED
    MAC_LEARNED
    STATION_MOVED
    MAC_AGED
    UNKNOWN_UNICAST
    FDB_FULL
    LINK_CLOSED
    EVENTS_LOST


cdef struct EventRecord:
    int64_t at_ns
    uint64_t mac
    # The destination of unknown unicast; a count, a capacity or an error number.
    uint64_t value
    uint32_t port_no
    uint32_t old_port_no
    EventKind kind


cdef struct EventRing:
    # Written by the engine's thread: `produced` (with release), `records` up to it, `lost_at_ns`.
    # Written by control: `drained`, how far it has copied; `taken`, how far its user has taken.
    # Both count from the beginning; their remainders by the capacity, a power of two, are places.
    # `lost` is added to by the engine and taken by whoever reports it.
    EventRecord *records
    uint64_t capacity
    uint64_t produced
    uint64_t drained
    uint64_t taken
    uint64_t lost
    int64_t lost_at_ns


cdef bint ring_open(EventRing *ring, uint64_t capacity) noexcept nogil
cdef void ring_close(EventRing *ring) noexcept nogil
cdef void ring_enlarge(EventRing *ring, EventRecord **records, uint64_t capacity) noexcept nogil
cdef void ring_put_bounded(EventRing *ring, EventRecord record, uint64_t most) noexcept nogil
cdef void ring_put_certain(EventRing *ring, EventRecord record) noexcept nogil
cdef bint ring_next(EventRing *ring, EventRecord *record) noexcept nogil
cdef bint ring_take_lost(EventRing *ring, EventRecord *record) noexcept nogil
cdef bint ring_has_untaken(EventRing *ring) noexcept nogil
