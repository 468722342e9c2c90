"""Records of the engine's thread as the frozen values that Python code knows."""

from umlab.engine._native.core cimport DROP_REASONS, SIZES
from umlab.engine._native.ring cimport (
    FDB_FULL,
    LINK_CLOSED,
    MAC_AGED,
    MAC_LEARNED,
    PORT_ATTACHED,
    PORT_DETACHED,
    STATION_MOVED,
    UNKNOWN_UNICAST,
)
from umlab.engine._native.system cimport __ATOMIC_RELAXED, load_u64
from umlab.switch.counters import DropReason, SwitchCounters
from umlab.switch.counters import PortCounters as PortCounts
from umlab.switch.events import (
    EventsLost,
    FdbFull,
    LinkClosed,
    MacAged,
    MacLearned,
    PortAttached,
    PortDetached,
    StationMoved,
    UnknownUnicast,
)

cdef tuple _REASONS = tuple(DropReason)


cdef bytes mac_bytes(uint64_t mac):
    """Return the 6 bytes of an address."""
    return (<char *>&mac)[:6]


cdef int vid_of(uint64_t mac):
    """Return the VID that lies above an address."""
    return <int>(mac >> 48)


cdef object switch_counts(Core *core):
    """Copy a switch's counters, each read whole, while the engine counts on."""
    return SwitchCounters(
        learned=load_u64(&core.learned, __ATOMIC_RELAXED),
        moved=load_u64(&core.moved, __ATOMIC_RELAXED),
        aged=load_u64(&core.aged, __ATOMIC_RELAXED),
        learn_refused=load_u64(&core.learn_refused, __ATOMIC_RELAXED),
        unknown_sender=load_u64(&core.unknown_sender, __ATOMIC_RELAXED),
        punted=load_u64(&core.punted, __ATOMIC_RELAXED),
        punt_lost=load_u64(&core.punt_lost, __ATOMIC_RELAXED),
    )


cdef object port_counts(PortCounters *counters):
    """Copy a port's counters, each read whole, while the engine counts on."""
    cdef int i
    cdef uint64_t count
    drops = {}
    for i in range(DROP_REASONS):
        count = load_u64(&counters.drops[i], __ATOMIC_RELAXED)
        if count:
            drops[_REASONS[i]] = count
    return PortCounts(
        load_u64(&counters.rx_frames, __ATOMIC_RELAXED),
        load_u64(&counters.rx_bytes, __ATOMIC_RELAXED),
        load_u64(&counters.tx_frames, __ATOMIC_RELAXED),
        load_u64(&counters.tx_bytes, __ATOMIC_RELAXED),
        drops,
        [load_u64(&counters.rx_sizes[i], __ATOMIC_RELAXED) for i in range(SIZES)],
        [load_u64(&counters.tx_sizes[i], __ATOMIC_RELAXED) for i in range(SIZES)],
    )


cdef object event_of(EventRecord *record):
    """Return the event that a record tells of."""
    if record.kind == MAC_LEARNED:
        return MacLearned(record.at_ns, mac_bytes(record.mac), record.port_no, vid_of(record.mac))
    if record.kind == STATION_MOVED:
        return StationMoved(
            record.at_ns, mac_bytes(record.mac), record.port_no, record.old_port_no, vid_of(record.mac)
        )
    if record.kind == MAC_AGED:
        return MacAged(record.at_ns, mac_bytes(record.mac), record.port_no, vid_of(record.mac))
    if record.kind == UNKNOWN_UNICAST:
        return UnknownUnicast(
            record.at_ns,
            mac_bytes(record.mac),
            mac_bytes(record.value),
            record.port_no,
            vid_of(record.mac),
        )
    if record.kind == PORT_ATTACHED:
        return PortAttached(record.at_ns, record.port_no)
    if record.kind == PORT_DETACHED:
        return PortDetached(record.at_ns, record.port_no)
    if record.kind == FDB_FULL:
        return FdbFull(record.at_ns, record.value)
    if record.kind == LINK_CLOSED:
        return LinkClosed(record.at_ns, record.port_no, record.value)
    return EventsLost(record.at_ns, record.value)
