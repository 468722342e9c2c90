"""What the native engine holds for each descriptor that it serves."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from umlab.engine._native.core cimport CorePort
from umlab.engine._native.header cimport Header
from umlab.engine._native.keyed_hash cimport Key
from umlab.engine._native.queue cimport Queue
from umlab.engine._native.stream cimport Stream


cdef enum EndpointKind:
    WAKE
    PORT
    SHARED

cdef enum Framing:
    #: In the order of umlab.switch.model.Framing.
    DATAGRAM
    SEQPACKET
    DEVICE
    STREAM
    PACKET

cdef enum:
    ADDRESS_SIZE = 108
    _ADDRESS_BUCKETS = 256


cdef struct Endpoint:
    # What an epoll event leads to: part of the port or the shared receiver that it belongs to.
    EndpointKind kind
    int fd
    void *owner


cdef struct Port:
    # Made and freed by control; the engine's from attach to detach, but for what control reads while
    # frames move: the counters, `queue.count` and `down`.
    CorePort core
    Endpoint endpoint
    Framing framing
    # What lies in front of every frame, NULL for nothing; with STREAM framing, what was read and written.
    Header *header
    Stream *stream
    # It is sent every frame and never read from.
    bint monitor
    # Its kernel undoes the connection when the peer is gone, unlike UDP's.
    bint is_unix_datagram
    # What epoll watches for, EPOLLOUT left aside.
    uint32_t mask
    # EPOLLOUT is watched as well: the queue waits until the guest has read.
    bint waiting
    # It came to its end and is out of the epoll set; the port itself stays.
    bint closed
    # The guest's end is known to be gone.
    uint32_t down
    int error_number
    uint32_t read_errors
    Queue queue
    # Frames were queued in this burst, to be sent at its end; the list of such ports.
    bint touched
    Port *next_touched
    # It is not read from for the sake of this port, until that time; the list of such ports, and how many
    # frames that port had taken when the pause began.
    Port *paused_for
    Port *next_paused
    int64_t paused_until_ns
    uint64_t taken_at_pause
    # It took nothing during a whole pause, nor since.
    bint stuck
    # Where frames are received when not on the port's own descriptor, and from whom, or from all.
    SharedReceiver *shared
    Port *next_at_address
    uint8_t address[ADDRESS_SIZE]
    bint takes_all


cdef struct SharedReceiver:
    # A datagram socket on which several ports receive, told apart by the sender's address.  Made and
    # freed by control; the engine's as long as a port uses it.
    Endpoint endpoint
    bint closed
    uint32_t port_count
    # Who has all that comes from others than the ports in the buckets.
    Port *sole
    Key key
    Port *buckets[_ADDRESS_BUCKETS]


cdef Port *shared_find(SharedReceiver *shared, const uint8_t *address) noexcept nogil
cdef void shared_join(SharedReceiver *shared, Port *port) noexcept nogil
cdef void shared_leave(SharedReceiver *shared, Port *port) noexcept nogil
cdef void port_update_down(Port *port) noexcept nogil
cdef uint32_t port_interest(const Port *port) noexcept nogil
cdef int endpoint_watch(Endpoint *endpoint, int epoll_fd, uint32_t mask) noexcept nogil
cdef void endpoint_watch_for(Endpoint *endpoint, int epoll_fd, uint32_t mask) noexcept nogil
cdef void endpoint_unwatch(Endpoint *endpoint, int epoll_fd) noexcept nogil
