"""The forwarding core: what ``umlab.switch.core`` defines, on flat tables, without the GIL.

All of it belongs to the engine's thread, except that control reads counters at any time.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from umlab.engine._native.fdb cimport Fdb, Home, Station
from umlab.engine._native.pool cimport Frame
from umlab.engine._native.queue cimport Queue
from umlab.engine._native.ring cimport EventKind, EventRing
from umlab.engine._native.tag cimport PortRules
from umlab.engine._native.tally cimport MAX_CAPTURES, Tally


cdef enum:
    #: What one step of a long task may do between two bursts.
    STEP = 256

cdef enum:
    #: In the order of umlab.switch.counters.DropReason.
    DROP_RUNT = 0
    DROP_OVERSIZE
    DROP_BAD_HEADER
    DROP_SAME_PORT
    DROP_VLAN
    DROP_RESERVED
    DROP_MIRROR
    DROP_TAIL
    DROP_PEER_GONE
    DROP_REFUSED
    DROP_REASONS
    NOT_DROPPED = -1

cdef enum:
    #: As many as umlab.switch.counters.SIZE_BUCKETS, and one for longer frames.
    SIZES = 7
    #: As in umlab.switch.core: frames that wait for the control protocols, and bytes of each.
    MAX_PUNTS = 64
    PUNT_SIZE = 2048
    #: As in umlab.switch.model.
    MAX_MIRRORS = 8


cdef struct PortCounters:
    # Written by the engine's thread alone, each a word: control reads them while it writes.
    uint64_t rx_frames
    uint64_t rx_bytes
    uint64_t tx_frames
    uint64_t tx_bytes
    uint64_t drops[DROP_REASONS]
    uint64_t rx_sizes[SIZES]
    uint64_t tx_sizes[SIZES]


cdef struct CorePort:
    # The first part of what serves a port.  Made and freed by control, in neither case while a table
    # that the engine uses names it.  `rules` lies in that table.  `captures` has a bit for each capture that
    # sees the port, and `tallies` an entry, made by control before the bit is set.
    Home home
    const PortRules *rules
    uint8_t captures
    PortCounters counters
    Tally *tallies[MAX_CAPTURES]


cdef struct ForwardingTables:
    # What control has computed for the engine to look up; never changed once the engine has it.
    # Control makes the next one, and frees this one when the engine has taken the next.
    uint64_t epoch
    int64_t ageing_ns
    uint32_t max_frame
    uint32_t queue_depth
    uint32_t fdb_capacity
    bint hub
    # The ports in their order: whom a flood goes to, the ingress port left out.  Behind them the monitors,
    # which are sent all that is forwarded, and then the destinations of mirror sessions.  `rules` has one
    # entry for each of all these.
    uint32_t port_count
    uint32_t monitor_count
    uint32_t all_count
    CorePort **ports
    PortRules *rules
    # Whether every port is transparent: no membership is to be asked for.
    bint transparent
    # Whom copies go to, each port once, NULL where nothing is plugged in; PortRules has a bit for each, and
    # so has each VID here, if any is mirrored.
    bint mirrored
    CorePort *destinations[MAX_MIRRORS]
    uint8_t *mirrored_vids


cdef struct Core:
    ForwardingTables *tables
    Fdb fdb
    EventRing events
    # No station can be dead up to here.
    int64_t quiet_until_ns
    bint fdb_full
    # Other tables were taken, and not every station that they leave no place for is forgotten yet.
    bint purging
    # Frames for the control protocols; control reads `punts.count` at any time.
    Queue punts
    uint64_t learned
    uint64_t moved
    uint64_t aged
    uint64_t learn_refused
    uint64_t unknown_sender
    uint64_t punted
    uint64_t punt_lost


cdef struct Lookup:
    # What is computed for each frame of a burst before the first of them is forwarded, so that the
    # tables are on their way into the cache meanwhile.  An address has the VID above its 48 bits.  `tag` is
    # the one that the frame came with, TPID in the high half, 0 for none that counts; `drop` why it goes
    # nowhere, or NOT_DROPPED; `admitted` whether the core is to be asked about it.
    int drop
    bint admitted
    uint32_t tag
    uint64_t source
    uint64_t destination
    uint32_t source_hash
    uint32_t destination_hash


cdef enum Verdict:
    UNICAST
    FLOOD
    DROP


cdef bint core_admit(Core *core, CorePort *ingress, Frame *frame, Lookup *lookup) noexcept nogil
cdef void core_prepare(Core *core, Frame *frames, int count, Lookup *lookups) noexcept nogil
cdef Verdict core_receive(
    Core *core, CorePort *ingress, Frame *frame, Lookup *lookup, CorePort **egress
) noexcept nogil
cdef void core_expire(Core *core, int64_t now_ns) noexcept nogil
cdef int64_t core_next_timer(Core *core) noexcept nogil
cdef void core_put_port_event(
    Core *core, EventKind kind, uint32_t port_no, int64_t now_ns, uint64_t value
) noexcept nogil
cdef bint core_forget_some(Core *core, Home *home, uint32_t *left) noexcept nogil
cdef bint core_shrink_some(Core *core) noexcept nogil
cdef bint core_purge_some(Core *core, uint32_t *first) noexcept nogil
cdef Station *core_restore(
    Core *core, uint64_t mac, Home *home, int64_t seen_ns, int64_t now_ns, Station *near
) noexcept nogil


cdef inline uint64_t load_mac(const uint8_t *data) noexcept nogil:
    """Return 6 bytes as the low bytes of a word, in memory order."""
    cdef uint64_t mac = 0
    memcpy(&mac, data, 6)
    return mac


cdef inline int size_bucket(uint32_t size) noexcept nogil:
    return (size > 64) + (size > 127) + (size > 255) + (size > 511) + (size > 1023) + (size > 1518)


cdef inline void count_sent(CorePort *port, uint32_t size) noexcept nogil:
    port.counters.tx_frames += 1
    port.counters.tx_bytes += size
    port.counters.tx_sizes[size_bucket(size)] += 1


cdef inline void count_drop(CorePort *port, int reason) noexcept nogil:
    port.counters.drops[reason] += 1
