"""Classify, learn, look up: ``umlab.switch.core`` line by line, with nothing allocated for a frame."""

from libc.stdint cimport INT64_MAX
from libc.string cimport memset

from umlab.engine._native.fdb cimport (
    NEVER,
    NO_STATION,
    fdb_add,
    fdb_bucket,
    fdb_find,
    fdb_hash,
    fdb_insert_seen,
    fdb_move,
    fdb_oldest,
    fdb_remove,
    fdb_touch,
)
from umlab.engine._native.ring cimport (
    FDB_FULL,
    MAC_AGED,
    MAC_LEARNED,
    MOST_FULL_EVENTS,
    MOST_STATION_EVENTS,
    STATION_MOVED,
    UNKNOWN_UNICAST,
    EventKind,
    EventRecord,
    ring_put_bounded,
    ring_put_certain,
)
from umlab.engine._native.system cimport prefetch


cdef enum:
    _MIN_FRAME = 14

# As umlab.switch.core.SWEEP_TIME_NS.
cdef int64_t _SWEEP_TIME_NS = 2_000_000_000


cdef void core_prepare(Core *core, Frame *frames, int count, Lookup *lookups) noexcept nogil:
    """Hash the addresses of a burst and call for what the tables hold of them; changes nothing."""
    cdef Fdb *fdb = &core.fdb
    cdef Lookup *lookup
    cdef uint32_t index
    cdef int i
    for i in range(count):
        lookup = lookups + i
        lookup.destination = load_mac(frames[i].data)
        lookup.source = load_mac(frames[i].data + 6)
        lookup.source_hash = fdb_hash(fdb, lookup.source)
        lookup.destination_hash = fdb_hash(fdb, lookup.destination)
        prefetch(fdb_bucket(fdb, lookup.source_hash))
        prefetch(fdb_bucket(fdb, lookup.destination_hash))
    for i in range(count):
        lookup = lookups + i
        prefetch(fdb.stations + fdb_bucket(fdb, lookup.source_hash)[0])
        prefetch(fdb.stations + fdb_bucket(fdb, lookup.destination_hash)[0])
    for i in range(count):
        # A station that is seen again changes places with its neighbours in time.
        index = fdb_bucket(fdb, lookups[i].source_hash)[0]
        prefetch(fdb.stations + fdb.stations[index].older)
        prefetch(fdb.stations + fdb.stations[index].newer)


cdef Verdict core_receive(
    Core *core, CorePort *ingress, Frame *frame, Lookup *lookup, CorePort **egress
) noexcept nogil:
    """Learn from one frame and say where it goes; ``egress`` is set for unicast."""
    cdef ForwardingTables *tables = core.tables
    cdef int64_t now_ns = frame.received_at
    cdef Station *station = NULL
    cdef Station *known
    if frame.length < _MIN_FRAME:
        count_drop(ingress, DROP_RUNT)
        return DROP
    if frame.length > tables.max_frame:
        count_drop(ingress, DROP_OVERSIZE)
        return DROP
    if now_ns > core.quiet_until_ns:
        core_expire(core, now_ns)
    if not frame.data[6] & 1:
        station = _learn(core, ingress, lookup, now_ns)
    if not (frame.data[0] & 1 or tables.hub):
        known = _find(core, lookup.destination, lookup.destination_hash)
        if known != NULL:
            if known.home == &ingress.home:
                count_drop(ingress, DROP_SAME_PORT)
                return DROP
            egress[0] = <CorePort *>known.home
            _count_received(ingress, frame)
            return UNICAST
        if station != NULL:
            _report_unknown(core, station, lookup.destination, now_ns)
    _count_received(ingress, frame)
    return FLOOD


cdef inline void _count_received(CorePort *ingress, Frame *frame) noexcept nogil:
    ingress.counters.rx_frames += 1
    ingress.counters.rx_bytes += frame.length


cdef inline Station *_find(Core *core, uint64_t mac, uint32_t hash) noexcept nogil:
    cdef Station *station = fdb_find(&core.fdb, mac, hash)
    if station != NULL and station.home.leaving:
        fdb_remove(&core.fdb, station)
        return NULL
    return station


cdef inline Station *_learn(Core *core, CorePort *ingress, Lookup *lookup, int64_t now_ns) noexcept nogil:
    cdef Station *station = _find(core, lookup.source, lookup.source_hash)
    if station == NULL:
        return _learn_new(core, ingress, lookup, now_ns)
    if station.home != &ingress.home:
        core.moved += 1
        _put_station_event(
            core, STATION_MOVED, station.mac, ingress.home.port_no, now_ns, 0, station.home.port_no
        )
        fdb_move(&core.fdb, station, &ingress.home)
    fdb_touch(&core.fdb, station, now_ns)
    return station


cdef Station *_learn_new(Core *core, CorePort *ingress, Lookup *lookup, int64_t now_ns) noexcept nogil:
    cdef Station *station = NULL
    if core.fdb.count < core.tables.fdb_capacity:
        station = fdb_add(&core.fdb, lookup.source, lookup.source_hash, &ingress.home, now_ns)
    if station == NULL:
        core.learn_refused += 1
        if not core.fdb_full:
            core.fdb_full = True
            ring_put_bounded(
                &core.events, _record(FDB_FULL, now_ns, 0, core.tables.fdb_capacity), MOST_FULL_EVENTS
            )
        return NULL
    core.fdb_full = False
    core.learned += 1
    _put_station_event(core, MAC_LEARNED, station.mac, ingress.home.port_no, now_ns, 0, 0)
    return station


cdef void _report_unknown(Core *core, Station *station, uint64_t destination, int64_t now_ns) noexcept nogil:
    cdef int64_t reported_ns = station.unknown_at_ns
    if reported_ns == NEVER or now_ns - reported_ns > core.tables.ageing_ns:
        station.unknown_at_ns = now_ns
        _put_station_event(
            core, UNKNOWN_UNICAST, station.mac, station.home.port_no, now_ns, destination, 0
        )


cdef EventRecord _record(EventKind kind, int64_t now_ns, uint32_t port_no, uint64_t value) noexcept nogil:
    cdef EventRecord record
    memset(&record, 0, sizeof(record))
    record.kind = kind
    record.at_ns = now_ns
    record.port_no = port_no
    record.value = value
    return record


cdef void _put_station_event(
    Core *core,
    EventKind kind,
    uint64_t mac,
    uint32_t port_no,
    int64_t now_ns,
    uint64_t value,
    uint32_t old_port_no,
) noexcept nogil:
    cdef EventRecord record = _record(kind, now_ns, port_no, value)
    record.mac = mac
    record.old_port_no = old_port_no
    ring_put_bounded(&core.events, record, MOST_STATION_EVENTS)


cdef void core_put_port_event(
    Core *core, EventKind kind, uint32_t port_no, int64_t now_ns, uint64_t value
) noexcept nogil:
    """Report what control must not miss."""
    ring_put_certain(&core.events, _record(kind, now_ns, port_no, value))


cdef void core_expire(Core *core, int64_t now_ns) noexcept nogil:
    """Forget every station that has aged, oldest first."""
    cdef int64_t ageing_ns = core.tables.ageing_ns
    cdef int64_t oldest_ns = now_ns
    cdef Station *station = fdb_oldest(&core.fdb)
    while station != NULL:
        if now_ns - station.last_seen_ns <= ageing_ns:
            oldest_ns = station.last_seen_ns
            break
        if not station.home.leaving:
            core.aged += 1
            _put_station_event(core, MAC_AGED, station.mac, station.home.port_no, now_ns, 0, 0)
        fdb_remove(&core.fdb, station)
        station = fdb_oldest(&core.fdb)
    core.quiet_until_ns = oldest_ns + ageing_ns


cdef int64_t core_next_timer(Core *core) noexcept nogil:
    """Return when ``core_expire`` is to be called: a whole multiple of the sweep time, or INT64_MAX."""
    cdef Station *station = fdb_oldest(&core.fdb)
    cdef int64_t expiry_ns
    if station == NULL:
        return INT64_MAX
    expiry_ns = station.last_seen_ns + core.tables.ageing_ns + 1
    return (expiry_ns + _SWEEP_TIME_NS - 1) // _SWEEP_TIME_NS * _SWEEP_TIME_NS


cdef bint core_forget_some(Core *core, Home *home, uint32_t *left) noexcept nogil:
    """Forget up to a step's worth of a port's stations, ``left`` at most; tell whether some are left."""
    cdef int done = 0
    while left[0] > 0 and home.first != NO_STATION:
        if done == STEP:
            return True
        fdb_remove(&core.fdb, core.fdb.stations + home.first)
        left[0] -= 1
        done += 1
    return False


cdef bint core_shrink_some(Core *core) noexcept nogil:
    """Forget some of what was seen longest ago and has no room any more; tell whether more is left."""
    cdef int done = 0
    while core.fdb.count > core.tables.fdb_capacity:
        if done == STEP:
            return True
        fdb_remove(&core.fdb, fdb_oldest(&core.fdb))
        done += 1
    return False


cdef Station *core_restore(
    Core *core, uint64_t mac, Home *home, int64_t seen_ns, int64_t now_ns, Station *near
) noexcept nogil:
    """Learn what another switch knew, if it is alive, unknown here and there is room; else return NULL."""
    cdef uint32_t hash = fdb_hash(&core.fdb, mac)
    if not now_ns - core.tables.ageing_ns <= seen_ns <= now_ns:
        return NULL
    if _find(core, mac, hash) != NULL or core.fdb.count >= core.tables.fdb_capacity:
        return NULL
    core.quiet_until_ns = NEVER
    return fdb_insert_seen(&core.fdb, mac, hash, home, seen_ns, near)
