"""Writing Enhanced Packet Blocks, as ``umlab.wire.pcapng.serialize_packet``, and taking them out again.

Nothing is allocated for a frame, and nobody waits.  What finds no room is counted, or drives out what is
oldest.  Words are written as they lie in memory: the processors that guests run on are little-endian.
"""

import struct

from libc.string cimport memcpy

from umlab.engine._native.bpf cimport bpf_run
from umlab.engine._native.core cimport DROP_REASONS, NOT_DROPPED
from umlab.engine._native.system cimport (
    __ATOMIC_ACQUIRE,
    __ATOMIC_RELEASE,
    __ATOMIC_SEQ_CST,
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    eventfd_read,
    eventfd_write,
    exchange_u32,
    iovec,
    load_u64,
    mmap,
    munmap,
    prefetch,
    store_u64,
)
from umlab.engine._native.tag cimport MOST_PARTS, TAG_SIZE, frame_parts, frame_size
from umlab.engine._native.tally cimport Tally
from umlab.switch.counters import DropReason


cdef enum:
    _PACKET = 6
    # Bytes in front of the frame, and behind it: the flags, the end of the options, and the length again.
    _HEAD = 28
    _TAIL = 16
    # The first words of options: code u16, length u16.
    _FLAGS = 2 | 4 << 16
    _DROP_COUNT = 4 | 8 << 16
    _DROP_COUNT_SIZE = 12
    _COMMENT = 1
    _COMMENT_ROOM = 32
    # How far ahead of a block memory is called for, and how much of it at most.
    _AHEAD = 512
    _MOST_AHEAD = 256
    # Bytes of the longest frame, and one more that shows it to be too long.
    _WHOLE = 65_536 + TAG_SIZE


cdef struct Comment:
    # A whole option.
    uint32_t size
    uint8_t data[_COMMENT_ROOM]


cdef struct Sight:
    # What is noted.
    const iovec *parts
    int count
    uint32_t length
    Direction direction
    int drop
    int64_t at_ns


# By drop reason; written when the module is loaded.
cdef Comment _comments[DROP_REASONS]


def _write_comments():
    cdef bytes option
    for number, reason in enumerate(DropReason):
        text = f"drop: {reason.value}".encode()
        option = struct.pack("<HH", _COMMENT, len(text)) + text + bytes(-len(text) & 3)
        assert len(option) <= _COMMENT_ROOM
        _comments[number].size = len(option)
        memcpy(_comments[number].data, <char *>option, len(option))


_write_comments()


cdef size_t _memory_size(const CaptureRing *ring) noexcept nogil:
    return ring.capacity + LONGEST_BLOCK + _WHOLE


cdef bint capture_open(CaptureRing *ring) noexcept nogil:
    """Make the memory of a ring that is told the rest; false if there is none."""
    cdef void *memory = mmap(
        NULL,
        _memory_size(ring),
        PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
        -1,
        0,
    )
    if memory == MAP_FAILED:
        return False
    ring.memory = <uint8_t *>memory
    ring.whole = ring.memory + ring.capacity + LONGEST_BLOCK
    ring.quarter = (ring.capacity + 3) // 4
    return True


cdef void capture_close(CaptureRing *ring) noexcept nogil:
    """Give the memory back."""
    if ring.memory != NULL:
        munmap(ring.memory, _memory_size(ring))
        ring.memory = NULL


# Reading.


cdef inline uint32_t _block_size(const CaptureRing *ring, uint64_t offset) noexcept nogil:
    return (<const uint32_t *>(ring.memory + offset))[1]


cdef inline uint64_t _offset_after(const CaptureRing *ring, uint64_t offset, uint32_t size) noexcept nogil:
    return offset + size if offset + size < ring.capacity else 0


cdef Span capture_span(
    const CaptureRing *ring, const Place *place, uint64_t end, uint64_t most
) noexcept nogil:
    """Return what lies from one place up to a position: ``most`` bytes, or one block if it alone is larger."""
    cdef Span span
    cdef uint32_t size
    span.size = span.first = 0
    span.after = place[0]
    while span.after.position < end:
        size = _block_size(ring, span.after.offset)
        if span.size and span.size + size > most:
            break
        span.size += size
        span.after.position += size
        span.after.offset = _offset_after(ring, span.after.offset, size)
        if span.after.offset == 0:
            span.first = span.size
    if span.first == 0:
        span.first = span.size
    return span


cdef void capture_copy(
    const CaptureRing *ring, const Place *place, const Span *span, uint8_t *to
) noexcept nogil:
    """Copy what lies from one place on."""
    memcpy(to, ring.memory + place.offset, span.first)
    memcpy(to + span.first, ring.memory, span.size - span.first)


cdef void capture_release(CaptureRing *ring, const Place *place) noexcept nogil:
    """Leave to the writer what lies before one place, and see that ``ready_fd`` says what is true."""
    cdef uint64_t value
    ring.tail.offset = place.offset
    store_u64(&ring.tail.position, place.position, __ATOMIC_RELEASE)
    if ring.ended or load_u64(&ring.head.position, __ATOMIC_ACQUIRE) - place.position >= ring.quarter:
        return
    # In this order: what is written in between makes it readable again, here or there.
    eventfd_read(ring.ready_fd, &value)
    exchange_u32(&ring.signalled, 0, __ATOMIC_SEQ_CST)
    if load_u64(&ring.head.position, __ATOMIC_SEQ_CST) - place.position >= ring.quarter:
        _signal(ring)


cdef inline void _signal(CaptureRing *ring) noexcept nogil:
    # A full barrier: if the reader has not seen the last block, this sees that the reader has looked.
    if not exchange_u32(&ring.signalled, 1, __ATOMIC_SEQ_CST):
        eventfd_write(ring.ready_fd, 1)


# Writing.


cdef void captures_note(
    Captures *captures, CorePort *port, const Frame *frame, Direction direction, int drop, int64_t at_ns
) noexcept nogil:
    """Tell the captures that see a port of a frame that its counters count.

    Args:
        captures: All of the engine.
        port: It.
        frame: As it came, or as it leaves.
        direction: Which.
        drop: Why it goes no further, or NOT_DROPPED.
        at_ns: When it came, left or was dropped.
    """
    cdef uint8_t tag[TAG_SIZE]
    cdef iovec parts[MOST_PARTS]
    cdef Sight sight
    cdef uint32_t left = port.captures
    cdef int place = 0
    sight.parts = parts
    sight.count = frame_parts(frame, tag, parts)
    sight.length = frame_size(frame)
    sight.direction = direction
    sight.drop = drop
    sight.at_ns = at_ns
    while left:
        if left & 1:
            _note(captures.rings[place], port.tallies[place], &sight)
        left >>= 1
        place += 1


cdef void _note(CaptureRing *ring, Tally *tally, const Sight *sight) noexcept nogil:
    cdef uint32_t kept = min(sight.length, ring.snap_length)
    cdef uint32_t size, verdict
    tally.seen += 1
    if ring.program != NULL:
        verdict = _ask(ring, sight)
        if verdict == 0:
            return
        kept = min(kept, verdict)
    tally.accepted += 1
    size = _HEAD + _padded(kept) + _TAIL
    if sight.drop != NOT_DROPPED:
        size += _comments[sight.drop].size
    if tally.unsaid:
        size += _DROP_COUNT_SIZE
    if not _make_room(ring, size):
        tally.lost += 1
        tally.unsaid += 1
        return
    _write(ring, tally, sight, kept, size)
    tally.unsaid = 0
    _call_ahead(ring, size)
    ring.head.offset = _offset_after(ring, ring.head.offset, size)
    store_u64(&ring.head.position, ring.head.position + size, __ATOMIC_RELEASE)
    if ring.head.position - ring.freed >= ring.quarter:
        _tell(ring)


cdef inline void _call_ahead(const CaptureRing *ring, uint32_t size) noexcept nogil:
    # Calls for the memory of blocks to come: each frame does other things in between, and a large ring has
    # left the cache by the time that it comes round.
    cdef const uint8_t *at = ring.memory + ring.head.offset + _AHEAD
    cdef const uint8_t *end = at + min(size, <uint32_t>_MOST_AHEAD)
    while at < end:
        prefetch(at)
        at += _CACHE_LINE


cdef inline uint32_t _padded(uint32_t size) noexcept nogil:
    return (size + 3) & ~<uint32_t>3


cdef uint32_t _ask(CaptureRing *ring, const Sight *sight) noexcept nogil:
    # Returns what the program says of a frame, put together for it if it lies in parts.
    if sight.count == 1:
        return bpf_run(ring.program, <const uint8_t *>sight.parts.iov_base, sight.length)
    _gather(ring.whole, sight, sight.length)
    return bpf_run(ring.program, ring.whole, sight.length)


cdef inline void _gather(uint8_t *to, const Sight *sight, uint32_t most) noexcept nogil:
    cdef const iovec *part = sight.parts
    cdef uint32_t size
    while most:
        size = <uint32_t>min(part.iov_len, <size_t>most)
        memcpy(to, part.iov_base, size)
        to += size
        most -= size
        part += 1


cdef bint _make_room(CaptureRing *ring, uint32_t size) noexcept nogil:
    cdef uint64_t end = ring.head.position + size
    if end - ring.freed <= ring.capacity:
        return True
    if not ring.overwrite:
        ring.freed = load_u64(&ring.tail.position, __ATOMIC_ACQUIRE)
        return end - ring.freed <= ring.capacity
    while end - ring.tail.position > ring.capacity:
        size = _block_size(ring, ring.tail.offset)
        ring.tail.position += size
        ring.tail.offset = _offset_after(ring, ring.tail.offset, size)
    ring.freed = ring.tail.position
    return True


cdef void _tell(CaptureRing *ring) noexcept nogil:
    # Says that a quarter is used, if it still is and nobody has said so.
    ring.freed = load_u64(&ring.tail.position, __ATOMIC_ACQUIRE)
    if ring.head.position - ring.freed < ring.quarter:
        return
    # Where blocks are overwritten, only this thread takes it back: no barrier is wanted for each frame.
    if not (ring.overwrite and ring.signalled):
        _signal(ring)


cdef inline void _write(
    CaptureRing *ring, const Tally *tally, const Sight *sight, uint32_t kept, uint32_t size
) noexcept nogil:
    # Source: draft-ietf-opsawg-pcapng 4.3.
    cdef uint32_t *to = <uint32_t *>(ring.memory + ring.head.offset)
    cdef uint64_t at_ns = <uint64_t>sight.at_ns + <uint64_t>ring.epoch_offset_ns
    cdef uint32_t words = _padded(kept) // 4
    cdef const Comment *comment
    to[0] = _PACKET
    to[1] = size
    to[2] = tally.interface
    to[3] = <uint32_t>(at_ns >> 32)
    to[4] = <uint32_t>at_ns
    to[5] = kept
    to[6] = sight.length
    to += _HEAD // 4
    if kept:
        # What is padded is 0.
        to[words - 1] = 0
        _gather(<uint8_t *>to, sight, kept)
        to += words
    if sight.drop != NOT_DROPPED:
        comment = &_comments[sight.drop]
        memcpy(to, comment.data, comment.size)
        to += comment.size // 4
    to[0] = _FLAGS
    to[1] = sight.direction
    to += 2
    if tally.unsaid:
        to[0] = _DROP_COUNT
        to[1] = <uint32_t>tally.unsaid
        to[2] = <uint32_t>(tally.unsaid >> 32)
        to += _DROP_COUNT_SIZE // 4
    to[0] = 0
    to[1] = size
