"""Flow control: who is not read from for a moment, because all it sends would be dropped.

What an 802.3x PAUSE frame asks of a sender, the full socket of a port that is not read does here.
"""

from umlab.engine._native.port cimport Port


cdef struct Pauses:
    # The engine's thread's.  A list of senders, through `next_paused`.
    int epoll_fd
    Port *first


cdef void pause(Pauses *pauses, Port *sender, Port *receiver) noexcept nogil
cdef void pauses_end_for(Pauses *pauses, Port *receiver) noexcept nogil
cdef void pauses_forget(Pauses *pauses, Port *port) noexcept nogil
cdef int pauses_expire(Pauses *pauses) noexcept nogil
