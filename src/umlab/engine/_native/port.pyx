"""Ports, the shared receivers that some of them receive on, and how epoll watches both.

Descriptors are taken out of the epoll set before they are closed, always: a duplicate in another
process would keep a closed one in, where nothing could take it out again.
"""

from libc.errno cimport errno
from libc.string cimport memcmp

from umlab.engine._native.keyed_hash cimport hash_bytes
from umlab.engine._native.system cimport (
    __ATOMIC_RELAXED,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLOUT,
    epoll_ctl,
    epoll_event,
    store_u32,
)


cdef Port **_bucket(SharedReceiver *shared, const uint8_t *address) noexcept nogil:
    return &shared.buckets[hash_bytes(&shared.key, address, ADDRESS_SIZE) % _ADDRESS_BUCKETS]


cdef Port *shared_find(SharedReceiver *shared, const uint8_t *address) noexcept nogil:
    """Return the port whose guest has this address, NULL for a stranger."""
    cdef Port *port = _bucket(shared, address)[0]
    while port != NULL and memcmp(port.address, address, ADDRESS_SIZE) != 0:
        port = port.next_at_address
    return port if port != NULL else shared.sole


cdef void shared_join(SharedReceiver *shared, Port *port) noexcept nogil:
    """Let a port receive here what its ``address`` sends, or what nobody else does."""
    cdef Port **bucket
    shared.port_count += 1
    if port.takes_all:
        shared.sole = port
        return
    bucket = _bucket(shared, port.address)
    port.next_at_address = bucket[0]
    bucket[0] = port


cdef void shared_leave(SharedReceiver *shared, Port *port) noexcept nogil:
    """Let a port receive here no more."""
    cdef Port **link
    shared.port_count -= 1
    if shared.sole == port:
        shared.sole = NULL
        return
    link = _bucket(shared, port.address)
    while link[0] != port:
        link = &link[0].next_at_address
    link[0] = port.next_at_address


cdef void port_update_down(Port *port) noexcept nogil:
    """Tell control whether the guest's end is known to be gone: nothing is read here any more."""
    cdef bint read = port.mask or port.shared != NULL or port.monitor
    store_u32(&port.down, port.closed or not read, __ATOMIC_RELAXED)


cdef uint32_t port_interest(const Port *port) noexcept nogil:
    """Return what epoll is to watch a port's descriptor for at present."""
    return (port.mask if port.paused_for == NULL else 0) | (EPOLLOUT if port.waiting else 0)


cdef int _control(Endpoint *endpoint, int epoll_fd, int operation, uint32_t mask) noexcept nogil:
    cdef epoll_event event
    event.events = mask
    event.data.ptr = endpoint
    return errno if epoll_ctl(epoll_fd, operation, endpoint.fd, &event) else 0


cdef int endpoint_watch(Endpoint *endpoint, int epoll_fd, uint32_t mask) noexcept nogil:
    """Put a descriptor into the epoll set; return 0 or an error number."""
    return _control(endpoint, epoll_fd, EPOLL_CTL_ADD, mask)


cdef void endpoint_watch_for(Endpoint *endpoint, int epoll_fd, uint32_t mask) noexcept nogil:
    """Watch a descriptor of the epoll set for something else."""
    _control(endpoint, epoll_fd, EPOLL_CTL_MOD, mask)


cdef void endpoint_unwatch(Endpoint *endpoint, int epoll_fd) noexcept nogil:
    """Take a descriptor out of the epoll set."""
    _control(endpoint, epoll_fd, EPOLL_CTL_DEL, 0)
