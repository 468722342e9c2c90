# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The native forwarding core alone: a burst's life without its system calls, one thread, in memory.

For each frame its addresses are written into a buffer, as if just received; its VLAN is found, its source learnt
and its destination looked up, and it is queued at its egress port, which sends it at once: it leaves the queue
when its burst is done, and its buffer goes back to the pool.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, clockid_t, timespec

import os

from umlab.engine._native.core cimport (
    UNICAST,
    Core,
    CorePort,
    ForwardingTables,
    Lookup,
    core_admit,
    core_prepare,
    core_receive,
    count_sent,
)
from umlab.engine._native.fdb cimport NEVER, fdb_close, fdb_open
from umlab.engine._native.keyed_hash cimport Key
from umlab.engine._native.pool cimport (
    BURST,
    SMALL_ROOM,
    Buffer,
    Frame,
    Pool,
    buffer_data,
    buffer_drop,
    pool_close,
    pool_open,
    pool_take,
)
from umlab.engine._native.queue cimport Queue, queue_close, queue_open, queue_pop, queue_push
from umlab.engine._native.ring cimport ring_close, ring_open
from umlab.engine._native.tag cimport PortRules

cdef enum:
    EVENTS = 1 << 17
    PORTS = 2

cdef struct Bench:
    Core core
    Pool pool
    ForwardingTables tables
    CorePort ports[PORTS]
    CorePort *table_ports[PORTS]
    PortRules rules[PORTS]
    Queue queues[PORTS]
    Buffer *slots[BURST]
    Frame frames[BURST]
    Lookup lookups[BURST]
    uint64_t failed       # frames that did not go where they should


def forward(list conversations, double seconds, int size=64):
    """Forward frames in bursts, from each of two ports to the other in turn.

    Args:
        conversations: For each port destination and source of its frames, 12 bytes each; they take turns in
            this order and begin again.
        seconds: Of the thread's own time, for how long at the least.
        size: Bytes of each frame.

    Returns:
        Frames per second of the thread's own time, which others cannot take away.

    Raises:
        RuntimeError: A frame went elsewhere than to the other port.
    """
    cdef Bench *bench = <Bench *> calloc(1, sizeof(Bench))
    cdef bytes one = b"".join(conversations[0])
    cdef bytes other = b"".join(conversations[1])
    cdef const uint8_t *heads[PORTS]
    cdef uint32_t length = len(conversations[0])
    cdef uint32_t at = 0
    cdef Key key
    cdef int64_t start, now, end, done = 0
    cdef int index, turn
    if bench == NULL:
        raise MemoryError
    assert len(one) == len(other) == 12 * length and length % BURST == 0
    heads[0], heads[1] = one, other
    key.low, key.high = int.from_bytes(os.urandom(8), "little"), int.from_bytes(os.urandom(8), "little")
    try:
        bench.tables.ageing_ns = <int64_t> 300 * 1000000000
        bench.tables.max_frame = 1522
        bench.tables.queue_depth = bench.tables.fdb_capacity = 65536
        bench.tables.port_count = bench.tables.all_count = PORTS
        bench.tables.rules = bench.rules
        bench.tables.transparent = True
        bench.tables.ports = bench.table_ports
        bench.core.tables = &bench.tables
        bench.core.quiet_until_ns = NEVER
        pool_open(&bench.pool, SMALL_ROOM, 4 * BURST, BURST)
        if not fdb_open(&bench.core.fdb, 65536, key) or not ring_open(&bench.core.events, EVENTS):
            raise MemoryError
        for index in range(PORTS):
            bench.ports[index].home.port_no = index + 1
            bench.ports[index].rules = &bench.rules[index]
            bench.table_ports[index] = &bench.ports[index]
            if not queue_open(&bench.queues[index], 2 * BURST):
                raise MemoryError
        for index in range(BURST):
            bench.slots[index] = pool_take(&bench.pool)
            memset(buffer_data(bench.slots[index]), 0, size)
        with nogil:
            # Every address is learnt before the clock starts; what was flooded meanwhile does not count.
            for turn in range(2):
                at = 0
                while at < length:
                    for index in range(PORTS):
                        forward_burst(bench, index, heads[index] + 12 * at, size)
                    at += BURST
            bench.failed = 0
            at = 0
            start = now = clock_ns(CLOCK_THREAD_CPUTIME_ID)
            end = start + <int64_t> (seconds * 1e9)
            while now < end:
                at = 0
                while at < length:
                    for index in range(PORTS):
                        forward_burst(bench, index, heads[index] + 12 * at, size)
                    at += BURST
                done += PORTS * length
                now = clock_ns(CLOCK_THREAD_CPUTIME_ID)
        if bench.failed:
            raise RuntimeError(f"{bench.failed} of {done} frames did not go to the other port")
        return done / ((now - start) / 1e9)
    finally:
        for index in range(PORTS):
            queue_close(&bench.queues[index])
        fdb_close(&bench.core.fdb)
        ring_close(&bench.core.events)
        pool_close(&bench.pool)
        free(bench)


cdef void forward_burst(Bench *bench, int port, const uint8_t *heads, int size) noexcept nogil:
    cdef int64_t now = clock_ns(CLOCK_MONOTONIC)
    cdef CorePort *ingress = &bench.ports[port]
    cdef CorePort *egress
    cdef Frame *frame
    cdef Queue *queue
    cdef int index
    for index in range(BURST):
        frame = &bench.frames[index]
        frame.buffer = bench.slots[index]
        frame.data = buffer_data(frame.buffer)
        frame.length = size
        frame.ingress = port + 1
        frame.received_at = now
        frame.vid = frame.csum_start = frame.csum_offset = frame.gso_type = frame.gso_size = 0
        frame.skip = 0
        frame.tag = 0
        memcpy(frame.data, heads + 12 * index, 12)
        if not core_admit(&bench.core, ingress, frame, &bench.lookups[index]):
            bench.failed += 1
    core_prepare(&bench.core, bench.frames, BURST, bench.lookups)
    for index in range(BURST):
        egress = NULL
        if (
            core_receive(&bench.core, ingress, &bench.frames[index], &bench.lookups[index], &egress) == UNICAST
            and egress == &bench.ports[1 - port]
        ):
            queue_push(&bench.queues[1 - port], &bench.frames[index])
        else:
            bench.failed += 1
    # The queue holds them all: every slot takes another buffer, as in the engine.
    for index in range(BURST):
        if bench.slots[index].references > 1:
            buffer_drop(bench.slots[index])
            bench.slots[index] = pool_take(&bench.pool)
    queue = &bench.queues[1 - port]
    while queue.count:
        count_sent(&bench.ports[1 - port], size)
        queue_pop(queue)


cdef int64_t clock_ns(clockid_t clock) noexcept nogil:
    cdef timespec time
    clock_gettime(clock, &time)
    return <int64_t> time.tv_sec * 1000000000 + time.tv_nsec
