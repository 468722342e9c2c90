"""Frames and the buffers that hold their bytes; all of it belongs to the engine's thread."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef enum:
    #: Where a frame begins in its buffer: behind the head, and behind 40 bytes that stay free, so that
    #: tags can be put in without moving it.
    DATA_AT = 64
    #: Bytes of a frame that a small buffer holds.  Its head and headroom come on top, which also keeps the
    #: beginnings of frames from all falling into the same few sets of the cache.
    SMALL_ROOM = 2048
    #: The same of a large buffer: the longest frame, one byte to see that it was longer, and the longest
    #: headers in front of it, in whole cache lines.
    LARGE_ROOM = 65_664
    #: Frames that are read, or written, in one system call, and before the next port has its turn.
    BURST = 64


cdef struct Buffer:
    # Lives from its pool's growth to the pool's end.  Returns to the pool when nobody refers to it.
    Pool *pool
    Buffer *next_free
    uint32_t references


cdef struct Frame:
    # A descriptor: copied freely, one for each queue that a frame waits in, each counted as a
    # reference to the buffer.  `data` lies in the buffer, `length` bytes without FCS, as it came.  It leaves
    # without the `skip` bytes behind its addresses, 0 or 4, and with `tag` in their place, TPID in the high
    # half, 0 for none: the bytes in the buffer are the same for all.
    Buffer *buffer
    uint8_t *data
    uint32_t length
    uint32_t ingress
    int64_t received_at
    uint16_t vid
    # The offload fields stay 0 until a transport that carries them fills them.
    uint16_t csum_start
    uint16_t csum_offset
    uint16_t gso_type
    uint16_t gso_size
    uint16_t skip
    uint32_t tag


cdef struct Chunk:
    Chunk *next


cdef struct Pool:
    # `spare` buffers lie in `free`; `made` of at most `limit` were cut out of chunks so far.
    Buffer *free
    uint32_t spare
    uint32_t made
    uint32_t limit
    uint32_t stride
    uint32_t per_chunk
    Chunk *chunks


cdef void pool_open(Pool *pool, uint32_t room, uint32_t limit, uint32_t per_chunk) noexcept nogil
cdef void pool_close(Pool *pool) noexcept nogil
cdef bint pool_can_spare(Pool *pool, uint32_t held) noexcept nogil
cdef Buffer *pool_take(Pool *pool) noexcept nogil


cdef inline uint8_t *buffer_data(Buffer *buffer) noexcept nogil:
    """Return where a frame begins in a buffer that nobody has put a tag into."""
    return <uint8_t *>buffer + DATA_AT


cdef inline void buffer_hold(Buffer *buffer) noexcept nogil:
    buffer.references += 1


cdef inline void buffer_drop(Buffer *buffer) noexcept nogil:
    cdef Pool *pool
    buffer.references -= 1
    if buffer.references == 0:
        pool = buffer.pool
        buffer.next_free = pool.free
        pool.free = buffer
        pool.spare += 1
