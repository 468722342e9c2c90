"""The filtering database: finding, learning, moving and forgetting take the same time however many there are."""

from libc.stdint cimport INT64_MIN

from umlab.engine._native.system cimport (
    __ATOMIC_RELAXED,
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    MREMAP_MAYMOVE,
    PROT_READ,
    PROT_WRITE,
    mmap,
    mremap,
    munmap,
    store_u32,
)

NEVER = INT64_MIN


cdef enum:
    _LEAST_BUCKETS = 64


cdef size_t _stations_size(uint32_t room) noexcept nogil:
    return (<size_t>room + 1) * sizeof(Station)


cdef size_t _buckets_size(uint32_t room) noexcept nogil:
    return (<size_t>room + _LEAST_BUCKETS) * sizeof(uint32_t)


cdef void *_reserve(size_t size) noexcept nogil:
    cdef void *memory = mmap(
        NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
    )
    return NULL if memory == MAP_FAILED else memory


cdef bint fdb_open(Fdb *fdb, uint32_t room, Key key) noexcept nogil:
    """Make an empty table with room for so many stations; false if there is no memory."""
    fdb.room = room
    fdb.count = fdb.free = fdb.oldest = fdb.newest = fdb.split = 0
    fdb.made = 0
    fdb.seen = 0
    fdb.level_mask = _LEAST_BUCKETS - 1
    fdb.key = key
    fdb.stations = <Station *>_reserve(_stations_size(room))
    fdb.buckets = <uint32_t *>_reserve(_buckets_size(room))
    if fdb.stations == NULL or fdb.buckets == NULL:
        fdb_close(fdb)
        return False
    return True


cdef void fdb_close(Fdb *fdb) noexcept nogil:
    """Give the memory back."""
    if fdb.stations != NULL:
        munmap(fdb.stations, _stations_size(fdb.room))
    if fdb.buckets != NULL:
        munmap(fdb.buckets, _buckets_size(fdb.room))
    fdb.stations = NULL
    fdb.buckets = NULL


cdef bint fdb_enlarge(Fdb *fdb, uint32_t room) noexcept nogil:
    """Have room for so many stations at least; takes the time that moving page tables takes."""
    cdef void *memory
    if room <= fdb.room:
        return True
    memory = mremap(fdb.stations, _stations_size(fdb.room), _stations_size(room), MREMAP_MAYMOVE)
    if memory == MAP_FAILED:
        return False
    fdb.stations = <Station *>memory
    memory = mremap(fdb.buckets, _buckets_size(fdb.room), _buckets_size(room), MREMAP_MAYMOVE)
    if memory == MAP_FAILED:
        mremap(fdb.stations, _stations_size(room), _stations_size(fdb.room), 0)
        return False
    fdb.buckets = <uint32_t *>memory
    fdb.room = room
    return True


cdef void _split_bucket(Fdb *fdb) noexcept nogil:
    cdef uint32_t bit = fdb.level_mask + 1
    cdef uint32_t *stays = fdb.buckets + fdb.split
    cdef uint32_t *goes = fdb.buckets + fdb.split + bit
    cdef uint32_t index = stays[0]
    cdef Station *station
    stays[0] = goes[0] = NO_STATION
    while index != NO_STATION:
        station = fdb.stations + index
        index = station.next_in_bucket
        if station.hash & bit:
            station.next_in_bucket = goes[0]
            goes[0] = <uint32_t>(station - fdb.stations)
        else:
            station.next_in_bucket = stays[0]
            stays[0] = <uint32_t>(station - fdb.stations)
    fdb.split += 1
    if fdb.split == bit:
        fdb.level_mask = 2 * fdb.level_mask + 1
        fdb.split = 0


cdef void _join_home(Fdb *fdb, Station *station, Home *home) noexcept nogil:
    cdef uint32_t index = <uint32_t>(station - fdb.stations)
    station.home = home
    station.home_previous = home.last
    station.home_next = NO_STATION
    if home.last != NO_STATION:
        fdb.stations[home.last].home_next = index
    else:
        home.first = index
    home.last = index
    home.count += 1


cdef void _leave_home(Fdb *fdb, Station *station) noexcept nogil:
    cdef Home *home = station.home
    if station.home_previous != NO_STATION:
        fdb.stations[station.home_previous].home_next = station.home_next
    else:
        home.first = station.home_next
    if station.home_next != NO_STATION:
        fdb.stations[station.home_next].home_previous = station.home_previous
    else:
        home.last = station.home_previous
    home.count -= 1
    station.home = NULL


cdef void _join_order(Fdb *fdb, Station *station, uint32_t older) noexcept nogil:
    # Puts a station right behind `older`, or first.
    cdef uint32_t index = <uint32_t>(station - fdb.stations)
    cdef uint32_t newer = fdb.stations[older].newer if older != NO_STATION else fdb.oldest
    station.older = older
    station.newer = newer
    if older != NO_STATION:
        fdb.stations[older].newer = index
    else:
        fdb.oldest = index
    if newer != NO_STATION:
        fdb.stations[newer].older = index
    else:
        fdb.newest = index


cdef void _leave_order(Fdb *fdb, Station *station) noexcept nogil:
    if station.older != NO_STATION:
        fdb.stations[station.older].newer = station.newer
    else:
        fdb.oldest = station.newer
    if station.newer != NO_STATION:
        fdb.stations[station.newer].older = station.older
    else:
        fdb.newest = station.older


cdef Station *_new_station(Fdb *fdb, uint64_t mac, uint32_t hash, Home *home, int64_t seen_ns) noexcept nogil:
    cdef uint32_t index = fdb.free
    cdef uint32_t *bucket
    cdef Station *station
    if index != NO_STATION:
        fdb.free = fdb.stations[index].next_in_bucket
    elif fdb.made < fdb.room:
        fdb.made += 1
        index = fdb.made
    else:
        return NULL
    station = fdb.stations + index
    bucket = fdb_bucket(fdb, hash)
    station.mac = mac
    station.hash = hash
    station.next_in_bucket = bucket[0]
    bucket[0] = index
    station.last_seen_ns = seen_ns
    station.unknown_at_ns = NEVER
    fdb.seen += 1
    station.seen_order = fdb.seen
    _join_home(fdb, station, home)
    store_u32(&fdb.count, fdb.count + 1, __ATOMIC_RELAXED)
    if fdb.count > fdb.level_mask + 1 + fdb.split:
        _split_bucket(fdb)
    return station


cdef Station *fdb_add(Fdb *fdb, uint64_t mac, uint32_t hash, Home *home, int64_t now_ns) noexcept nogil:
    """Learn an address that is not in the table and was seen just now; NULL when there is no room."""
    cdef Station *station = _new_station(fdb, mac, hash, home, now_ns)
    if station != NULL:
        _join_order(fdb, station, fdb.newest)
    return station


cdef Station *fdb_insert_seen(
    Fdb *fdb, uint64_t mac, uint32_t hash, Home *home, int64_t seen_ns, Station *near
) noexcept nogil:
    """Learn an address that was seen in the past, behind all that were seen before it or just then.

    The search for its place begins at ``near``, a station of the table, or NULL for the newest.
    """
    cdef Station *station = _new_station(fdb, mac, hash, home, seen_ns)
    cdef uint32_t older, index
    if station == NULL:
        return NULL
    older = <uint32_t>(near - fdb.stations) if near != NULL else fdb.newest
    while older != NO_STATION and fdb.stations[older].last_seen_ns > seen_ns:
        older = fdb.stations[older].older
    while True:
        index = fdb.stations[older].newer if older != NO_STATION else fdb.oldest
        if index == NO_STATION or fdb.stations[index].last_seen_ns > seen_ns:
            break
        older = index
    _join_order(fdb, station, older)
    return station


cdef void fdb_touch(Fdb *fdb, Station *station, int64_t now_ns) noexcept nogil:
    """Note that a station was seen just now."""
    station.last_seen_ns = now_ns
    fdb.seen += 1
    station.seen_order = fdb.seen
    if station.newer != NO_STATION:
        _leave_order(fdb, station)
        _join_order(fdb, station, fdb.newest)


cdef void fdb_move(Fdb *fdb, Station *station, Home *home) noexcept nogil:
    """Note that a station is on another port."""
    _leave_home(fdb, station)
    _join_home(fdb, station, home)


cdef void fdb_remove(Fdb *fdb, Station *station) noexcept nogil:
    """Forget a station."""
    cdef uint32_t index = <uint32_t>(station - fdb.stations)
    cdef uint32_t *link = fdb_bucket(fdb, station.hash)
    while link[0] != index:
        link = &fdb.stations[link[0]].next_in_bucket
    link[0] = station.next_in_bucket
    _leave_home(fdb, station)
    _leave_order(fdb, station)
    station.next_in_bucket = fdb.free
    fdb.free = index
    store_u32(&fdb.count, fdb.count - 1, __ATOMIC_RELAXED)
