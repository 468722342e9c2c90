"""What becomes of a port when its descriptor, or its shared receiver, comes to its end."""

from umlab.engine._native.loop cimport Loop
from umlab.engine._native.port cimport Port, SharedReceiver


cdef void link_close(Loop *loop, Port *port, int error_number) noexcept nogil
cdef void link_close_shared(Loop *loop, SharedReceiver *shared) noexcept nogil
