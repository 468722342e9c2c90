"""Memory that control owns and the engine's thread uses, and what control knows to be attached.

The memory of a port, and of a shared receiver, lives as long as its object.
"""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from umlab.engine._descriptor import address_key, check_receiver
from umlab.engine._native.core cimport CorePort
from umlab.engine._native.header cimport Header
from umlab.engine._native.loop cimport loop_do
from umlab.engine._native.pool cimport Frame
from umlab.engine._native.port cimport PORT, SHARED, STREAM, Framing
from umlab.engine._native.queue cimport queue_close, queue_open, queue_slots_for
from umlab.engine._native.step cimport QueueOrder, step_enlarge_queue
from umlab.engine._native.stream cimport Stream
from umlab.engine._native.system cimport close
from umlab.engine._native.tag cimport NO_VID, VID_WORDS, Policy, PortRules, VidBits
from umlab.errors import NoSuchPort, SwitchError
from umlab.switch.model import Framing as LinkFraming
from umlab.switch.model import ReservedPolicy

cdef tuple _FRAMINGS = tuple(LinkFraming)
cdef tuple _POLICIES = tuple(ReservedPolicy)

cdef enum:
    # Bytes that say of each VID what is mirrored.
    _VIDS = 4096

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

    cdef int enlarge_queue(self, Loop *loop, uint32_t depth) except -1:
        """Let the queue of a port that the engine has hold so many frames; it is made no smaller."""
        cdef QueueOrder order
        order.port = self.port
        order.mask = queue_slots_for(depth) - 1
        if order.mask <= self.port.queue.mask:
            return 0
        order.slots = <Frame *>malloc((<size_t>order.mask + 1) * sizeof(Frame))
        if order.slots == NULL:
            raise MemoryError
        with nogil:
            loop_do(loop, step_enlarge_queue, &order)
        free(order.slots)
        return 0


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
        self._vids = {}

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
        """Compute what the engine looks up, for all ports but the one that is leaving; ``free`` takes it.

        It refers to what ``keep_vids`` frees.
        """
        cdef list attached = [self.by_number[number] for number in self.numbers() if number != leaving]
        cdef list destinations = list(dict.fromkeys(each.destination for each in config.mirrors))
        cdef Attachment attachment
        cdef ForwardingTables *tables
        cdef size_t ports = len(attached) * sizeof(CorePort *)
        cdef size_t rules = len(attached) * sizeof(PortRules)
        cdef int place
        # One piece of memory: the head, the ports, their rules, and what is mirrored of each VID.
        tables = <ForwardingTables *>calloc(1, sizeof(ForwardingTables) + ports + rules + _VIDS)
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
        tables.rules = <PortRules *>(<uint8_t *>(tables + 1) + ports)
        tables.mirrored_vids = <uint8_t *>(tables + 1) + ports + rules
        tables.mirrored = bool(config.mirrors)
        tables.transparent = True
        for place in range(3):
            for attachment in attached:
                if _place_of(attachment, destinations) == place:
                    self._add_to(tables, attachment, config, destinations)
            if place == 0:
                tables.port_count = tables.all_count
            elif place == 1:
                tables.monitor_count = tables.all_count - tables.port_count
        for session in config.mirrors:
            place = 1 << destinations.index(session.destination)
            for vid in session.vids:
                tables.mirrored_vids[vid] |= place
        return tables

    cdef int _add_to(
        self, ForwardingTables *tables, Attachment attachment, config, list destinations
    ) except -1:
        """Let tables name one more port."""
        cdef PortRules *rules = &tables.rules[tables.all_count]
        cdef uint8_t bit
        port_no = attachment.port.core.home.port_no
        tables.ports[tables.all_count] = &attachment.port.core
        tables.all_count += 1
        given = config.ports.get(port_no)
        if given is not None:
            rules.reserved = <Policy><int>_POLICIES.index(given.reserved)
            if given.vlan is not None:
                tables.transparent = False
                rules.vids = self._vids_of(given.vlan).bits
                rules.pvid = given.vlan.pvid or NO_VID
                rules.tpid = given.vlan.tpid
        if port_no in destinations:
            rules.is_destination = True
            tables.destinations[destinations.index(port_no)] = &attachment.port.core
        for session in config.mirrors:
            if port_no in session.ports:
                bit = 1 << <int>destinations.index(session.destination)
                rules.mirror_in |= bit if session.ingress else 0
                rules.mirror_out |= bit if session.egress else 0
        return 0

    cdef Vids _vids_of(self, vlan):
        found = self._vids.get(vlan)
        if found is None:
            found = self._vids[vlan] = Vids(vlan)
        return found

    def keep_vids(self, config):
        """Free what only tables of another configuration refer to; the engine uses none of them."""
        used = {port.vlan for port in config.ports.values()}
        self._vids = {vlan: vids for vlan, vids in self._vids.items() if vlan in used}


cdef int _place_of(Attachment attachment, list destinations):
    # Where tables name a port: among those that are switched, monitors, or destinations of mirrors.
    if attachment.port.core.home.port_no in destinations:
        return 2
    return 1 if attachment.port.monitor else 0


cdef class Vids:
    """The bitmaps of one umlab.switch.vlan.PortVlan, freed with this object."""

    def __cinit__(self, vlan):
        self.bits = <VidBits *>calloc(1, sizeof(VidBits))
        if self.bits == NULL:
            raise MemoryError
        _write_bits(self.bits.admitted, vlan.admitted.bits)
        _write_bits(self.bits.tagged, vlan.tagged.bits)
        _write_bits(self.bits.members, vlan.members.bits)

    def __dealloc__(self):
        free(self.bits)


cdef int _write_bits(uint64_t *to, bits) except -1:
    cdef bytes data = bits.to_bytes(VID_WORDS * sizeof(uint64_t), "little")
    memcpy(to, <char *>data, VID_WORDS * sizeof(uint64_t))
    return 0
