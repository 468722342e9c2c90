"""A port's egress queue: frame descriptors in a ring, each a reference to its buffer."""

from libc.stdint cimport uint32_t

from umlab.engine._native.pool cimport Frame, buffer_drop, buffer_hold


cdef struct Queue:
    # Belongs to the engine's thread; control reads `count` at any time.  `slots` is a power of two of
    # descriptors, at least as many as may wait; control makes and frees it.
    Frame *slots
    uint32_t mask
    uint32_t head
    uint32_t count


cdef bint queue_open(Queue *queue, uint32_t depth) noexcept nogil
cdef void queue_close(Queue *queue) noexcept nogil
cdef uint32_t queue_slots_for(uint32_t depth) noexcept nogil
cdef Frame *queue_enlarge(Queue *queue, Frame *slots, uint32_t mask) noexcept nogil


cdef inline void queue_push(Queue *queue, Frame *frame) noexcept nogil:
    buffer_hold(frame.buffer)
    queue.slots[(queue.head + queue.count) & queue.mask] = frame[0]
    queue.count += 1


cdef inline Frame *queue_at(Queue *queue, uint32_t number) noexcept nogil:
    return queue.slots + ((queue.head + number) & queue.mask)


cdef inline void queue_pop(Queue *queue) noexcept nogil:
    buffer_drop(queue.slots[queue.head].buffer)
    queue.count -= 1
    # An empty queue begins anew, so that only as much memory is touched as frames have waited.
    queue.head = (queue.head + 1) & queue.mask if queue.count else 0
