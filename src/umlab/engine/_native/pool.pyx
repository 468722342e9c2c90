"""Bounded pools of buffers that grow by chunks, never by a frame, and are cut down at their end only."""

from umlab.engine._native.system cimport (
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    mmap,
    munmap,
)


cdef enum:
    # What a chunk has in front of its buffers; it keeps them on cache lines of their own.
    _CHUNK_HEAD = 64


cdef void pool_open(Pool *pool, uint32_t room, uint32_t limit, uint32_t per_chunk) noexcept nogil:
    """Make a pool of at most ``limit`` buffers that hold ``room`` bytes each; it holds none yet."""
    pool.free = NULL
    pool.chunks = NULL
    pool.spare = pool.made = 0
    pool.limit = limit
    pool.per_chunk = per_chunk
    pool.stride = DATA_AT + room


cdef size_t _chunk_size(Pool *pool) noexcept nogil:
    return _CHUNK_HEAD + <size_t>pool.per_chunk * pool.stride


cdef void pool_close(Pool *pool) noexcept nogil:
    """Give all memory back, whoever refers to it."""
    cdef Chunk *chunk
    while pool.chunks != NULL:
        chunk = pool.chunks
        pool.chunks = chunk.next
        munmap(chunk, _chunk_size(pool))
    pool.free = NULL
    pool.spare = pool.made = 0


cdef bint _grow(Pool *pool) noexcept nogil:
    cdef void *memory
    cdef Chunk *chunk
    cdef Buffer *buffer
    cdef uint32_t number
    if pool.made + pool.per_chunk > pool.limit:
        return False
    memory = mmap(
        NULL, _chunk_size(pool), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0
    )
    if memory == MAP_FAILED:
        return False
    chunk = <Chunk *>memory
    chunk.next = pool.chunks
    pool.chunks = chunk
    # The first of the chunk is to be taken first: pages are touched as they are needed.
    for number in range(pool.per_chunk, 0, -1):
        buffer = <Buffer *>(<uint8_t *>memory + _CHUNK_HEAD + <size_t>(number - 1) * pool.stride)
        buffer.pool = pool
        buffer.next_free = pool.free
        pool.free = buffer
    pool.made += pool.per_chunk
    pool.spare += pool.per_chunk
    return True


cdef bint pool_can_spare(Pool *pool, uint32_t held) noexcept nogil:
    """Tell whether a queue that holds ``held`` frames may hold one more.

    A queue may hold as many frames as it leaves to others, so that however many guests have stopped,
    there is room for the next.  Two bursts always stay spare: the receiver refills its slots from one, and
    the other is for streams, where half a frame may be out before it is seen that it has to wait.
    """
    if pool.spare <= 2 * BURST and not _grow(pool):
        return False
    return held + BURST < pool.spare + (pool.limit - pool.made)


cdef Buffer *pool_take(Pool *pool) noexcept nogil:
    """Take a buffer with one reference, NULL if there is none."""
    cdef Buffer *buffer
    if pool.free == NULL and not _grow(pool):
        return NULL
    buffer = pool.free
    pool.free = buffer.next_free
    pool.spare -= 1
    buffer.references = 1
    return buffer
