"""The end of a link: nothing is read or sent there any more; the port waits to be detached."""

from libc.stdint cimport uint32_t

from umlab.engine._native.core cimport ForwardingTables, core_put_port_event
from umlab.engine._native.egress cimport egress_purge
from umlab.engine._native.loop cimport loop_now
from umlab.engine._native.pause cimport pauses_forget
from umlab.engine._native.port cimport endpoint_unwatch, port_update_down
from umlab.engine._native.ring cimport LINK_CLOSED


cdef void link_close(Loop *loop, Port *port, int error_number) noexcept nogil:
    """Serve a port's descriptor no more; the port stays, and its frames are dropped."""
    port.closed = True
    pauses_forget(&loop.pauses, port)
    endpoint_unwatch(&port.endpoint, loop.epoll_fd)
    egress_purge(&loop.egress, port)
    port_update_down(port)
    core_put_port_event(&loop.core, LINK_CLOSED, port.core.home.port_no, loop_now(loop), error_number)


cdef void link_close_shared(Loop *loop, SharedReceiver *shared) noexcept nogil:
    """Serve a shared receiver no more that its transport has shut down, nor the ports behind it."""
    cdef ForwardingTables *tables = loop.core.tables
    cdef Port *port
    cdef uint32_t i
    shared.closed = True
    endpoint_unwatch(&shared.endpoint, loop.epoll_fd)
    for i in range(tables.all_count):
        port = <Port *>tables.ports[i]
        if port.shared == shared and not port.closed:
            link_close(loop, port, 0)
