"""Records of the engine's thread as the frozen values that Python code knows."""

from libc.stdint cimport uint64_t

from umlab.engine._native.core cimport Core, PortCounters
from umlab.engine._native.ring cimport EventRecord


cdef bytes mac_bytes(uint64_t mac)
cdef int vid_of(uint64_t mac)
cdef object switch_counts(Core *core)
cdef object port_counts(PortCounters *counters)
cdef object event_of(EventRecord *record)
