"""The filtering database as the native engine holds it; all of it belongs to the engine's thread.

``count`` alone is read by control, at any time.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from umlab.engine._native.keyed_hash cimport Key, hash_mac


cdef struct Home:
    # The first part of a port: the stations that were last seen there, in the order in which they came.
    # Lives as long as any of them.
    uint32_t first
    uint32_t last
    uint32_t count
    uint32_t port_no
    # The port is being detached: its stations count as forgotten, and are, one by one.
    bint leaving


cdef struct Station:
    # One cache line.  Named by its index, which stays while it lives; 0 is no station.  A free one has
    # no home, and `next_in_bucket` leads to the next free one.
    uint64_t mac
    int64_t last_seen_ns
    int64_t unknown_at_ns
    # Grows with each frame seen: orders stations that were seen at the same instant.
    uint64_t seen_order
    Home *home
    uint32_t hash
    uint32_t next_in_bucket
    uint32_t older
    uint32_t newer
    uint32_t home_previous
    uint32_t home_next


cdef enum:
    NO_STATION = 0

cdef int64_t NEVER  # no time; set when the module is loaded


cdef struct Fdb:
    # Two mappings, as large as the capacity asks and resident as far as they were used.  The buckets
    # grow one by one with the stations (linear hashing: Litwin, VLDB 1980), so that no frame pays for
    # a table that is made anew.
    Station *stations
    uint32_t *buckets
    uint32_t room
    uint32_t count
    uint32_t made
    uint32_t free
    uint32_t oldest
    uint32_t newest
    uint32_t level_mask
    uint32_t split
    uint64_t seen
    Key key


cdef bint fdb_open(Fdb *fdb, uint32_t room, Key key) noexcept nogil
cdef void fdb_close(Fdb *fdb) noexcept nogil
cdef bint fdb_enlarge(Fdb *fdb, uint32_t room) noexcept nogil
cdef Station *fdb_add(Fdb *fdb, uint64_t mac, uint32_t hash, Home *home, int64_t now_ns) noexcept nogil
cdef Station *fdb_insert_seen(
    Fdb *fdb, uint64_t mac, uint32_t hash, Home *home, int64_t seen_ns, Station *near
) noexcept nogil
cdef void fdb_touch(Fdb *fdb, Station *station, int64_t now_ns) noexcept nogil
cdef void fdb_move(Fdb *fdb, Station *station, Home *home) noexcept nogil
cdef void fdb_remove(Fdb *fdb, Station *station) noexcept nogil


cdef inline uint32_t fdb_hash(const Fdb *fdb, uint64_t mac) noexcept nogil:
    return <uint32_t>hash_mac(&fdb.key, mac)


cdef inline uint32_t *fdb_bucket(Fdb *fdb, uint32_t hash) noexcept nogil:
    cdef uint32_t number = hash & fdb.level_mask
    if number < fdb.split:
        number = hash & (2 * fdb.level_mask + 1)
    return fdb.buckets + number


cdef inline Station *fdb_find(Fdb *fdb, uint64_t mac, uint32_t hash) noexcept nogil:
    cdef uint32_t index = fdb_bucket(fdb, hash)[0]
    cdef Station *station
    while index != NO_STATION:
        station = fdb.stations + index
        if station.mac == mac:
            return station
        index = station.next_in_bucket
    return NULL


cdef inline Station *fdb_oldest(Fdb *fdb) noexcept nogil:
    return fdb.stations + fdb.oldest if fdb.oldest != NO_STATION else NULL
