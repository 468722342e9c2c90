"""The orders that control gives, and the steps that the engine's thread does for them between two bursts.

An order lies in control's memory and is the thread's until its last step is done.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from umlab.engine._native.capture cimport CaptureRing, Place
from umlab.engine._native.core cimport MAX_PUNTS, PUNT_SIZE, STEP, ForwardingTables
from umlab.engine._native.fdb cimport Home, Station
from umlab.engine._native.loop cimport Loop
from umlab.engine._native.pool cimport Frame
from umlab.engine._native.port cimport Port, SharedReceiver
from umlab.engine._native.ring cimport EventRecord


cdef struct PortOrder:
    Port *port
    SharedReceiver *shared
    ForwardingTables *tables
    bint begun
    uint32_t left
    int error


cdef struct FlushOrder:
    Home *home
    bint begun
    uint32_t left
    uint32_t flushed


cdef struct FdbOrder:
    Station *stations
    uint32_t *ports
    uint32_t first
    uint32_t count


cdef struct Restored:
    uint64_t mac
    Home *home
    int64_t last_seen_ns


cdef struct RestoreOrder:
    Restored entries[STEP]
    uint32_t count


cdef struct ConfigureOrder:
    ForwardingTables *tables
    bint begun
    bint failed
    # Of the stations that are looked at, for what has no place any more; 0 if all have.
    uint32_t first


cdef struct Punted:
    int64_t at_ns
    uint32_t port_no
    uint32_t length
    uint8_t data[PUNT_SIZE]


cdef struct PuntOrder:
    Punted frames[MAX_PUNTS]
    uint32_t count


cdef struct SendOrder:
    Port *port
    const uint8_t *data
    uint32_t length


cdef struct WatchOrder:
    # `number` among the engine's captures; `first` of the ports that are told in this step.
    CaptureRing *ring
    int number
    uint32_t first


cdef struct TakeOrder:
    # What is held from `place` to `end`: `most` bytes of it, or one block, to where there is room for that;
    # `taken` so far.  It stays in the ring unless it is `consumed`.
    CaptureRing *ring
    Place place
    uint64_t end
    uint8_t *to
    uint64_t most
    uint64_t taken
    bint consumed


cdef struct QueueOrder:
    Port *port
    Frame *slots
    uint32_t mask


cdef struct RingOrder:
    EventRecord *records
    uint64_t capacity


cdef bint step_attach(Loop *loop, void *argument) noexcept nogil
cdef bint step_detach(Loop *loop, void *argument) noexcept nogil
cdef bint step_flush(Loop *loop, void *argument) noexcept nogil
cdef bint step_copy_fdb(Loop *loop, void *argument) noexcept nogil
cdef bint step_restore(Loop *loop, void *argument) noexcept nogil
cdef bint step_configure(Loop *loop, void *argument) noexcept nogil
cdef bint step_enlarge_queue(Loop *loop, void *argument) noexcept nogil
cdef bint step_enlarge_ring(Loop *loop, void *argument) noexcept nogil
cdef bint step_begin_capture(Loop *loop, void *argument) noexcept nogil
cdef bint step_end_capture(Loop *loop, void *argument) noexcept nogil
cdef bint step_find_blocks(Loop *loop, void *argument) noexcept nogil
cdef bint step_take_blocks(Loop *loop, void *argument) noexcept nogil
cdef bint step_take_punts(Loop *loop, void *argument) noexcept nogil
cdef bint step_send(Loop *loop, void *argument) noexcept nogil
cdef bint step_stop(Loop *loop, void *argument) noexcept nogil
