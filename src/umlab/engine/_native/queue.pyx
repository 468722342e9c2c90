"""Making, enlarging and giving back egress queues; what is done for each frame is in the declarations."""

from libc.stdlib cimport free, malloc


cdef uint32_t queue_slots_for(uint32_t depth) noexcept nogil:
    """Return the power of two of descriptors that holds ``depth``."""
    cdef uint32_t slots = 1
    while slots < depth:
        slots *= 2
    return slots


cdef bint queue_open(Queue *queue, uint32_t depth) noexcept nogil:
    """Make an empty queue; false if there is no memory."""
    cdef uint32_t slots = queue_slots_for(depth)
    queue.slots = <Frame *>malloc(slots * sizeof(Frame))
    queue.mask = slots - 1
    queue.head = queue.count = 0
    return queue.slots != NULL


cdef void queue_close(Queue *queue) noexcept nogil:
    """Give the memory back; nothing waits by now, or the pools of what waits are gone as well."""
    free(queue.slots)
    queue.slots = NULL


cdef Frame *queue_enlarge(Queue *queue, Frame *slots, uint32_t mask) noexcept nogil:
    """Move to larger memory, and return the smaller for its maker to free."""
    cdef Frame *smaller = queue.slots
    cdef uint32_t number
    for number in range(queue.count):
        slots[number] = queue_at(queue, number)[0]
    queue.slots = slots
    queue.mask = mask
    queue.head = 0
    return smaller
