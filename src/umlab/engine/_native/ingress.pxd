"""The way into the switch: what descriptors hold is read, in bursts, and forwarded."""

from umlab.engine._native.loop cimport Loop
from umlab.engine._native.port cimport Port, SharedReceiver


cdef void ingress_receive(Loop *loop, Port *port, bint hung_up) noexcept nogil
cdef void ingress_receive_shared(Loop *loop, SharedReceiver *shared) noexcept nogil
