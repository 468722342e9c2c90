"""Flow control, bounded: a pause ends when the receiver's queue has gone down, and soon in any case.

A sender that is faster than its receiver would keep the processors busy with frames that are dropped, and
take from the receiver the time that it needs to catch up.  Only a sender that sends many frames at once to one
full port, and none elsewhere, is paused; and not for a receiver that has taken nothing since the last pause:
for that one it would wait in vain.  So a guest that is slow, or has stopped, holds nobody else up.
"""

from libc.stdint cimport int64_t

from umlab.engine._native.port cimport endpoint_watch_for, port_interest
from umlab.engine._native.system cimport monotonic_ns


cdef enum:
    _LONGEST_PAUSE_NS = 2_000_000


cdef void pause(Pauses *pauses, Port *sender, Port *receiver) noexcept nogil:
    """Do not read from a sender until the receiver has caught up or the pause has lasted long enough."""
    if sender.paused_for != NULL or receiver.stuck:
        return
    sender.paused_for = receiver
    sender.paused_until_ns = monotonic_ns() + _LONGEST_PAUSE_NS
    sender.taken_at_pause = receiver.core.counters.tx_frames
    sender.next_paused = pauses.first
    pauses.first = sender
    endpoint_watch_for(&sender.endpoint, pauses.epoll_fd, port_interest(sender))


cdef void _end(Pauses *pauses, Port **link) noexcept nogil:
    cdef Port *sender = link[0]
    link[0] = sender.next_paused
    sender.paused_for = NULL
    endpoint_watch_for(&sender.endpoint, pauses.epoll_fd, port_interest(sender))


cdef void pauses_end_for(Pauses *pauses, Port *receiver) noexcept nogil:
    """Read again from all that were paused for a receiver."""
    cdef Port **link = &pauses.first
    while link[0] != NULL:
        if link[0].paused_for == receiver:
            _end(pauses, link)
        else:
            link = &link[0].next_paused


cdef void pauses_forget(Pauses *pauses, Port *port) noexcept nogil:
    """End what pauses there are of a port, or for it, before it goes."""
    cdef Port **link = &pauses.first
    while link[0] != NULL:
        if link[0] == port or link[0].paused_for == port:
            _end(pauses, link)
        else:
            link = &link[0].next_paused


cdef int pauses_expire(Pauses *pauses) noexcept nogil:
    """End the pauses whose time is over; return in how many milliseconds to ask again, -1 for never."""
    cdef Port **link = &pauses.first
    cdef int64_t now_ns
    cdef Port *receiver
    if pauses.first == NULL:
        return -1
    now_ns = monotonic_ns()
    while link[0] != NULL:
        if link[0].paused_until_ns > now_ns:
            link = &link[0].next_paused
            continue
        receiver = link[0].paused_for
        if receiver.core.counters.tx_frames == link[0].taken_at_pause:
            receiver.stuck = True
        _end(pauses, link)
    return 1 if pauses.first != NULL else -1
