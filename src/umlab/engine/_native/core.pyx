"""Classify, learn, look up: ``umlab.switch.core`` line by line, with nothing allocated for a frame."""

from libc.stdint cimport INT64_MAX, uint16_t
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
from umlab.engine._native.pool cimport pool_can_spare
from umlab.engine._native.queue cimport queue_push
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
from umlab.engine._native.tag cimport BRIDGE, NO_VID, PEER, has_vid, is_member


cdef enum:
    _MIN_FRAME = 14
    # Addresses, a tag, and the type behind it.
    _MIN_TAGGED = 18

# As umlab.switch.core.SWEEP_TIME_NS.
cdef int64_t _SWEEP_TIME_NS = 2_000_000_000


cdef bint core_admit(Core *core, CorePort *ingress, Frame *frame, Lookup *lookup) noexcept nogil:
    """Find a frame's VLAN; false if it goes no further, with its fate counted and in ``lookup.drop``."""
    cdef const PortRules *rules = ingress.rules
    lookup.tag = 0
    lookup.drop = NOT_DROPPED
    if frame.length < _MIN_FRAME:
        return _drop(ingress, lookup, DROP_RUNT)
    if frame.length > core.tables.max_frame:
        # There may be more of it, by chance: room for headers that it does not have.
        frame.length = core.tables.max_frame + 1
        return _drop(ingress, lookup, DROP_OVERSIZE)
    if rules.is_destination:
        return _drop(ingress, lookup, DROP_MIRROR)
    if frame.data[0] == 0x01 and _is_reserved(frame.data):
        if rules.reserved == PEER or (frame.data[12] == 0x88 and frame.data[13] == 0xCC):
            _punt(core, frame)
        if rules.reserved == PEER:
            _count_received(ingress, frame)
            return False
        if rules.reserved == BRIDGE:
            return _drop(ingress, lookup, DROP_RESERVED)
    return rules.vids == NULL or _classify(ingress, rules, frame, lookup)


cdef bint _drop(CorePort *ingress, Lookup *lookup, int reason) noexcept nogil:
    count_drop(ingress, reason)
    lookup.drop = reason
    return False


cdef inline bint _is_reserved(const uint8_t *data) noexcept nogil:
    # 01-80-C2-00-00-00 up to -0F.
    return data[1] == 0x80 and data[2] == 0xC2 and data[3] == 0 and data[4] == 0 and data[5] < 0x10


cdef void _punt(Core *core, Frame *frame) noexcept nogil:
    if core.punts.count < MAX_PUNTS and pool_can_spare(frame.buffer.pool, core.punts.count):
        core.punted += 1
        queue_push(&core.punts, frame)
    else:
        core.punt_lost += 1


cdef bint _classify(CorePort *ingress, const PortRules *rules, Frame *frame, Lookup *lookup) noexcept nogil:
    # As umlab.switch.tag.tagging_of.
    cdef uint32_t tci, vid
    if (<uint32_t>frame.data[12] << 8 | frame.data[13]) == rules.tpid:
        if frame.length < _MIN_TAGGED:
            return _drop(ingress, lookup, DROP_RUNT)
        tci = <uint32_t>frame.data[14] << 8 | frame.data[15]
        vid = tci & 0x0FFF
        lookup.tag = <uint32_t>rules.tpid << 16 | tci
        if vid:
            frame.vid = <uint16_t>vid
            return has_vid(rules.vids.admitted, vid) or _drop(ingress, lookup, DROP_VLAN)
    frame.vid = rules.pvid
    return rules.pvid != NO_VID or _drop(ingress, lookup, DROP_VLAN)


cdef void core_prepare(Core *core, Frame *frames, int count, Lookup *lookups) noexcept nogil:
    """Hash the addresses of a burst and call for what the tables hold of them; changes nothing."""
    cdef Fdb *fdb = &core.fdb
    cdef Lookup *lookup
    cdef uint32_t index
    cdef int i
    for i in range(count):
        lookup = lookups + i
        lookup.destination = load_mac(frames[i].data) | <uint64_t>frames[i].vid << 48
        lookup.source = load_mac(frames[i].data + 6) | <uint64_t>frames[i].vid << 48
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
    """Learn from one frame that was admitted and say where it goes; ``egress`` is set for unicast."""
    cdef ForwardingTables *tables = core.tables
    cdef int64_t now_ns = frame.received_at
    cdef Station *station = NULL
    cdef Station *known
    if now_ns > core.quiet_until_ns:
        core_expire(core, now_ns)
    if not frame.data[6] & 1:
        station = _learn(core, ingress, lookup, now_ns)
    if not (frame.data[0] & 1 or tables.hub):
        known = _find(core, lookup.destination, lookup.destination_hash)
        if known != NULL:
            if known.home == &ingress.home:
                _drop(ingress, lookup, DROP_SAME_PORT)
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
    ingress.counters.rx_sizes[size_bucket(frame.length)] += 1


cdef inline Station *_find(Core *core, uint64_t mac, uint32_t hash) noexcept nogil:
    cdef Station *station = fdb_find(&core.fdb, mac, hash)
    if station != NULL and (station.home.leaving or (core.purging and not _belongs(station))):
        fdb_remove(&core.fdb, station)
        return NULL
    return station


cdef bint _belongs(Station *station) noexcept nogil:
    # A home is the first part of its port.
    return is_member((<CorePort *>station.home).rules, <uint32_t>(station.mac >> 48))


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


cdef bint core_purge_some(Core *core, uint32_t *first) noexcept nogil:
    """Forget stations in VLANs that their ports are no members of, from one on; tell whether more are left."""
    cdef uint32_t end = min(first[0] + STEP, core.fdb.made + 1)
    cdef Station *station
    cdef uint32_t index
    for index in range(first[0], end):
        station = core.fdb.stations + index
        if station.home != NULL and not station.home.leaving and not _belongs(station):
            fdb_remove(&core.fdb, station)
    first[0] = end
    core.purging = end <= core.fdb.made
    return core.purging


cdef Station *core_restore(
    Core *core, uint64_t mac, Home *home, int64_t seen_ns, int64_t now_ns, Station *near
) noexcept nogil:
    """Learn what another switch knew, if it is alive, unknown here and there is room; else return NULL."""
    cdef uint32_t hash = fdb_hash(&core.fdb, mac)
    if not now_ns - core.tables.ageing_ns <= seen_ns <= now_ns:
        return NULL
    if not is_member((<CorePort *>home).rules, <uint32_t>(mac >> 48)):
        return NULL
    if _find(core, mac, hash) != NULL or core.fdb.count >= core.tables.fdb_capacity:
        return NULL
    core.quiet_until_ns = NEVER
    return fdb_insert_seen(&core.fdb, mac, hash, home, seen_ns, near)
