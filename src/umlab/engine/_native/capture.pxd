"""Frames on their way into captures: blocks of pcapng in a ring that is read while it is written.

A block lies in one piece.  The one that reaches the ring's capacity ends a lap: the next begins at the
beginning, and behind the capacity there is room for the longest.  As a ring never holds more bytes
than its capacity, a lap does not come up to what is left of the one before.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from umlab.engine._native.bpf cimport Instruction
from umlab.engine._native.clock cimport Clock
from umlab.engine._native.core cimport CorePort
from umlab.engine._native.pool cimport Frame
from umlab.engine._native.tally cimport MAX_CAPTURES


cdef enum Direction:
    #: As in umlab.wire.pcapng.
    INBOUND = 1
    OUTBOUND = 2

cdef enum:
    _CACHE_LINE = 64


cdef struct Place:
    # Between two blocks: bytes since the beginning, and where that is in the ring's memory.
    uint64_t position
    uint64_t offset


cdef struct CaptureRing:
    # Made and freed by control, whose are what comes first, not to be changed while the engine has it.
    uint8_t *memory
    uint64_t capacity
    uint64_t quarter
    # NULL to keep every frame; otherwise `whole` is where one that lies in parts is put together for it.
    Instruction *program
    uint8_t *whole
    uint32_t snap_length
    bint overwrite
    int64_t epoch_offset_ns
    int ready_fd
    # The engine's thread's; `head.position` is published with release.  `freed` is what it has seen of
    # `tail.position`.
    Place head
    uint64_t freed
    uint8_t _between[_CACHE_LINE]
    # Whose turn it is to take blocks: the engine's thread's, for itself and in control's steps, where blocks are
    # overwritten; the reader's otherwise, who publishes `tail.position` with release.
    Place tail
    # `ready_fd` was written to, and not read since; it is read no more when the capture has ended.
    uint32_t signalled
    bint ended


cdef struct Captures:
    # The engine's thread's.  CorePort has a bit for each that sees the port.
    const Clock *clock
    CaptureRing *rings[MAX_CAPTURES]


cdef struct Span:
    # Whole blocks from one place on: how many bytes, how many of them before the lap ends, and what comes next.
    uint64_t size
    uint64_t first
    Place after


cdef enum:
    #: Bytes of the longest block, or more.
    LONGEST_BLOCK = 65_536 + 128


cdef bint capture_open(CaptureRing *ring) noexcept nogil
cdef void capture_close(CaptureRing *ring) noexcept nogil
cdef Span capture_span(
    const CaptureRing *ring, const Place *place, uint64_t end, uint64_t most
) noexcept nogil
cdef void capture_copy(
    const CaptureRing *ring, const Place *place, const Span *span, uint8_t *to
) noexcept nogil
cdef void capture_release(CaptureRing *ring, const Place *place) noexcept nogil
cdef void captures_note(
    Captures *captures, CorePort *port, const Frame *frame, Direction direction, int drop, int64_t at_ns
) noexcept nogil
