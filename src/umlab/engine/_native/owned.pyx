"""Memory that control owns and the engine's thread uses, and what control knows to be attached.

The memory of a port, and of a shared receiver, lives as long as its object.
"""

import os

from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from umlab.engine._descriptor import address_key, check_receiver
from umlab.engine._native.core cimport CorePort
from umlab.engine._native.header cimport Header
from umlab.engine._native.port cimport PORT, SHARED, STREAM, Framing
from umlab.engine._native.queue cimport queue_close, queue_open
from umlab.engine._native.stream cimport Stream
from umlab.engine._native.system cimport close
from umlab.errors import NoSuchPort, SwitchError
from umlab.switch.model import Framing as LinkFraming

cdef tuple _FRAMINGS = tuple(LinkFraming)
# A table names ports in 32 bits.
cdef object _LAST_NUMBER = 0xFFFF_FFFF


cdef Key new_key():
    """Return a secret that nobody else has."""
    cdef Key key
    cdef bytes secret = os.urandom(sizeof(key))
    memcpy(&key, <char *>secret, sizeof(key))
    return key


cdef class Shared:
    """A shared receiver's memory and our duplicate of its descriptor, both given back with this object."""

    def __cinit__(self, int transport_fd):
        self.transport_fd = transport_fd
        self.addresses = set()
        self.receiver = <SharedReceiver *>calloc(1, sizeof(SharedReceiver))
        if self.receiver == NULL:
            raise MemoryError
        self.receiver.endpoint.fd = -1
        self.receiver.endpoint.kind = SHARED
        self.receiver.endpoint.owner = self.receiver
        self.receiver.key = new_key()
        self.receiver.endpoint.fd = os.dup(transport_fd)

    def __dealloc__(self):
        if self.receiver != NULL:
            if self.receiver.endpoint.fd >= 0:
                close(self.receiver.endpoint.fd)
            free(self.receiver)


cdef class Attachment:
    """A port's memory, freed with this object; the descriptor is not its own."""

    def __cinit__(self, uint32_t port_no, link, bint is_unix_datagram, Shared shared, uint32_t depth):
        self.shared = shared
        self.port = <Port *>calloc(1, sizeof(Port))
        if self.port == NULL or not queue_open(&self.port.queue, depth):
            raise MemoryError
        self.port.core.home.port_no = port_no
        self.port.endpoint.kind = PORT
        self.port.endpoint.fd = link.fd
        self.port.endpoint.owner = self.port
        self.port.framing = <Framing><int>_FRAMINGS.index(link.framing)
        self.port.is_unix_datagram = is_unix_datagram
        self.port.monitor = link.monitor
        if link.encapsulation is not None:
            self.port.header = <Header *>calloc(1, sizeof(Header))
            if self.port.header == NULL:
                raise MemoryError
            _write_header(self.port.header, link.encapsulation)
        if self.port.framing == STREAM:
            self.port.stream = <Stream *>calloc(1, sizeof(Stream))
            if self.port.stream == NULL:
                raise MemoryError
        if shared is not None:
            self.address = address_key(link.rx_address)
            self.port.takes_all = not self.address
            memcpy(self.port.address, <char *>self.address, len(self.address))

    def __dealloc__(self):
        if self.port != NULL:
            queue_close(&self.port.queue)
            free(self.port.header)
            free(self.port.stream)
            free(self.port)


cdef void _write_header(Header *header, encapsulation):
    cdef bytes rx = encapsulation.rx_header
    cdef bytes tx = encapsulation.tx_header
    header.rx_size = len(rx)
    memcpy(header.rx, <char *>rx, header.rx_size)
    header.rx_skip = encapsulation.rx_skip
    header.ip_in_front = encapsulation.ip_header
    memcpy(header.tx, <char *>tx, len(tx))
    header.counted = encapsulation.tx_counter is not None
    header.counter = encapsulation.tx_counter or 0
    header.tx_size = len(tx) + 4 * header.counted


cdef class Registry:
    """What is attached: by number, by descriptor, and by the transport's descriptor that is shared."""

    def __cinit__(self):
        self.by_number = {}
        self._number_by_fd = {}
        self._shared = {}

    def numbers(self):
        """Return the port numbers in order."""
        return sorted(self.by_number)

    def has_fd(self, fd):
        """Tell whether a port has this descriptor."""
        return fd in self._number_by_fd

    def descriptors(self):
        """Return how many descriptors the ports have, shared ones counted once."""
        return len(self._number_by_fd) + len(self._shared)

    def free_number(self, port_no, first):
        """Return the number that a new port can have, ``port_no`` unless that is None.

        Raises:
            SwitchError: The number is taken, or lower than the first.
        """
        if port_no is None:
            port_no = first
            while port_no in self.by_number:
                port_no += 1
        elif port_no in self.by_number or not first <= port_no <= _LAST_NUMBER:
            raise SwitchError(f"port {port_no} cannot be had")
        return port_no

    cdef Shared shared_receiver(self, link):
        """Return what a link's port receives on, made if need be; None if on its own descriptor.

        Raises:
            SwitchError: The link is half a one, or another port has its address.
            OSError: The transport's descriptor cannot be duplicated.
        """
        cdef Shared shared
        if (link.rx_shared_fd is None) != (link.rx_address is None):
            raise SwitchError("a shared receiver and an address go together")
        if link.rx_shared_fd is None:
            return None
        address = address_key(link.rx_address)
        shared = self._shared.get(link.rx_shared_fd)
        if shared is None:
            check_receiver(link.rx_shared_fd)
            return Shared(link.rx_shared_fd)
        if address in shared.addresses:
            raise SwitchError("another port has this address")
        return shared

    cdef Attachment get(self, port_no):
        """Return what is attached there.

        Raises:
            NoSuchPort: Nothing is.
        """
        attachment = self.by_number.get(port_no)
        if attachment is None:
            raise NoSuchPort(port_no)
        return attachment

    cdef int add(self, Attachment attachment) except -1:
        """Note what the engine serves from now on."""
        self.by_number[attachment.port.core.home.port_no] = attachment
        self._number_by_fd[attachment.port.endpoint.fd] = attachment.port.core.home.port_no
        if attachment.shared is not None:
            attachment.shared.addresses.add(attachment.address)
            self._shared[attachment.shared.transport_fd] = attachment.shared
        return 0

    cdef Attachment pop(self, port_no):
        """Take out what the engine is to serve no more."""
        cdef Attachment attachment = self.by_number.pop(port_no)
        del self._number_by_fd[attachment.port.endpoint.fd]
        if attachment.shared is not None:
            attachment.shared.addresses.remove(attachment.address)
            if not attachment.shared.addresses:
                del self._shared[attachment.shared.transport_fd]
        return attachment

    cdef ForwardingTables *new_tables(self, config, leaving=None) except NULL:
        """Compute what the engine looks up, for all ports but the one that is leaving; ``free`` takes it."""
        cdef list attached = [self.by_number[number] for number in self.numbers() if number != leaving]
        cdef Attachment attachment
        cdef ForwardingTables *tables = <ForwardingTables *>malloc(
            sizeof(ForwardingTables) + len(attached) * sizeof(CorePort *)
        )
        if tables == NULL:
            raise MemoryError
        self._epoch += 1
        tables.epoch = self._epoch
        tables.hub = config.hub
        tables.ageing_ns = config.ageing_time_ns
        tables.max_frame = config.max_frame
        tables.queue_depth = config.egress_queue_depth
        tables.fdb_capacity = config.fdb_capacity
        tables.ports = <CorePort **>(tables + 1)
        tables.port_count = tables.monitor_count = 0
        for attachment in attached:
            if not attachment.port.monitor:
                tables.ports[tables.port_count] = &attachment.port.core
                tables.port_count += 1
        for attachment in attached:
            if attachment.port.monitor:
                tables.ports[tables.port_count + tables.monitor_count] = &attachment.port.core
                tables.monitor_count += 1
        return tables
