"""The frame loop: epoll, bursts, egress, and the one place where control meets the engine's thread."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from umlab.engine._native.capture cimport Captures
from umlab.engine._native.clock cimport Clock, clock_now
from umlab.engine._native.core cimport Core, CorePort, ForwardingTables, Lookup
from umlab.engine._native.egress cimport Egress
from umlab.engine._native.pause cimport Pauses
from umlab.engine._native.pool cimport BURST
from umlab.engine._native.port cimport Endpoint, Port
from umlab.engine._native.slots cimport Slots
from umlab.engine._native.system cimport sem_t


cdef enum:
    READY_AT_ONCE = 256


cdef struct Loop:
    # Made, started and freed by control.  In between it belongs to the engine's thread, but for:
    #   `mailbox`, `done`   a step of control's on its way to the thread, and back
    #   `alive`             the thread takes steps; otherwise control makes them itself
    #   `bursts`            odd while frames move: what they count is not whole
    #   `signalled`         `event_fd` was written to and not read since
    #   `punts_told`        of how many punted frames its reader knows
    # and the counters, which control reads at any time.
    Core core
    Slots slots
    Egress egress
    Pauses pauses
    Captures captures
    Clock clock
    int epoll_fd
    int wake_fd
    int event_fd
    Endpoint wake
    bint stopping
    uint32_t alive
    uint32_t signalled
    uint64_t punts_told
    uint64_t bursts
    void *mailbox
    sem_t done
    # Of the burst that is being forwarded: where each frame came from, what the tables say, how many there
    # are, and the one port that all of them went to, if so.
    CorePort *ingress[BURST]
    Lookup lookups[BURST]
    int burst_size
    Port *only_egress


#: Part of a control call, done between two bursts; returns whether there is more to do.
ctypedef bint (*Step)(Loop *loop, void *argument) noexcept nogil


cdef struct Command:
    Step step
    void *argument
    bint more


cdef bint loop_open(Loop *loop) noexcept nogil
cdef void loop_close(Loop *loop) noexcept nogil
cdef void loop_run(Loop *loop) noexcept nogil
cdef bint loop_call(Loop *loop, Step step, void *argument) noexcept nogil
cdef void loop_do(Loop *loop, Step step, void *argument) noexcept nogil
cdef void loop_await_burst_end(Loop *loop) noexcept nogil
cdef void loop_await_end(Loop *loop) noexcept nogil
cdef void loop_use_tables(Loop *loop, ForwardingTables *tables) noexcept nogil


cdef inline int64_t loop_now(Loop *loop) noexcept nogil:
    return clock_now(&loop.clock)
