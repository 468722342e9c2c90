"""Memory that control owns and the engine's thread uses, and what control knows to be attached."""

from libc.stdint cimport uint32_t

from umlab.engine._native.core cimport ForwardingTables
from umlab.engine._native.keyed_hash cimport Key
from umlab.engine._native.loop cimport Loop
from umlab.engine._native.port cimport Port, SharedReceiver
from umlab.engine._native.tag cimport VidBits


cdef class Shared:
    # Our duplicate of a transport's descriptor; lives as long as a port receives there.
    cdef SharedReceiver *receiver
    cdef readonly int transport_fd
    cdef readonly set addresses


cdef class Attachment:
    # Lives until the step that detaches its port has been done.
    cdef Port *port
    cdef readonly Shared shared
    # As umlab.engine._descriptor.address_key has it; None without a shared receiver.
    cdef readonly bytes address

    cdef int enlarge_queue(self, Loop *loop, uint32_t depth) except -1


cdef class Registry:
    cdef readonly dict by_number
    cdef dict _number_by_fd
    cdef dict _shared
    # By umlab.switch.vlan.PortVlan.
    cdef dict _vids
    cdef unsigned long long _epoch

    cdef Shared shared_receiver(self, link)
    cdef Attachment get(self, port_no)
    cdef int add(self, Attachment attachment) except -1
    cdef Attachment pop(self, port_no)
    cdef ForwardingTables *new_tables(self, config, leaving=*) except NULL
    cdef int _add_to(
        self, ForwardingTables *tables, Attachment attachment, config, list destinations
    ) except -1
    cdef Vids _vids_of(self, vlan)


cdef class Vids:
    # Lives as long as tables that the engine uses refer to it.
    cdef VidBits *bits


cdef Key new_key()
