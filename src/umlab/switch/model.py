"""What a switch and its ports are told to be: plain frozen values that engines and transports share."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from umlab.switch.vlan import NO_VIDS, PortVlan, VidSet

SECOND_NS = 1_000_000_000

#: Destination, source and type: what a frame must have before anything can look at it.
MIN_FRAME = 14
#: The longest that 802.1Q allows.
MAX_AGEING_NS = 1_000_000 * SECOND_NS
#: Addresses that a switch may be told to learn, at most.
MAX_FDB_CAPACITY = 1 << 22
#: Frames that a port may be told to queue, at most.
MAX_QUEUE_DEPTH = 65_536
#: Bytes that a frame on a stream may have by its length field; QEMU's own limit (net/net.c).
MAX_STREAM_LENGTH = 69_632
#: Bytes of an encapsulation's header.
MAX_HEADER = 32
#: The greatest number of a port.
MAX_PORT_NO = 65_535
#: Mirror sessions of one switch.
MAX_MIRRORS = 8


class Framing(enum.Enum):
    """How frames lie in what a descriptor carries."""

    #: A datagram or raw socket, connected to the peer; one frame is one message and EOF does not exist.
    DATAGRAM = "datagram"
    #: A connected SOCK_SEQPACKET socket; one frame is one message, an empty read is EOF.
    SEQPACKET = "seqpacket"
    #: A character device such as a tap without packet information; one frame is one read or write.
    DEVICE = "device"
    #: A connected SOCK_STREAM socket; each frame comes behind its length, 4 bytes, big-endian.  A length
    #: of 0 is skipped, and one over ``MAX_STREAM_LENGTH`` ends the link.
    STREAM = "stream"
    #: An AF_PACKET socket of an interface; one frame is one message, and the 802.1Q tag that the kernel
    #: hands over beside it (PACKET_AUXDATA) is put back.
    PACKET = "packet"


@dataclass(frozen=True, slots=True)
class Encapsulation:
    """What lies in front of each frame of a ``DATAGRAM`` link.

    Attributes:
        rx_header: What a message must begin with; one that does not is dropped as ``bad_header``.
        tx_header: What goes out in front of a frame.
        rx_skip: Bytes behind ``rx_header`` that nobody looks at, such as a counter.
        tx_counter: The first value of the counter that goes out behind ``tx_header``, 4 bytes, big-endian,
            one more for each message, modulo 2**32; ``None`` for no counter.
        ip_header: Whether an IPv4 header comes in front of what is read, as it does on a raw socket.

    All headers together have ``MAX_HEADER`` bytes at most, the IPv4 header of up to 60 left aside.
    """

    rx_header: bytes
    tx_header: bytes
    rx_skip: int = 0
    tx_counter: int | None = None
    ip_header: bool = False

    def __post_init__(self) -> None:
        tx_size = len(self.tx_header) + (0 if self.tx_counter is None else 4)
        if self.rx_skip < 0 or max(len(self.rx_header) + self.rx_skip, tx_size) > MAX_HEADER:
            raise ValueError(f"headers have at most {MAX_HEADER} bytes")
        if not 0 <= (self.tx_counter or 0) < 1 << 32:
            raise ValueError("a counter has 32 bits")


@dataclass(frozen=True, slots=True)
class Link:
    """The descriptors of one attachment, as an engine serves them.

    Attributes:
        fd: The non-blocking descriptor that the engine writes this port's frames to, and reads them
            from unless ``rx_shared_fd`` is set.  The engine owns it from ``attach`` on.
        framing: How frames lie in it.
        rx_shared_fd: Where several ports receive on one datagram socket (daemon protocol v0), or where
            one receives on another socket than it sends on (multicast), that socket; it belongs to the
            transport and outlives the port.
        rx_address: With ``rx_shared_fd``, the raw 108-byte path field of the sender that is this port
            (padded with NULs), or nothing where the port has all that comes there for itself.
        encapsulation: What lies in front of each frame, with ``DATAGRAM`` only.
        monitor: The port is sent every frame that the switch forwards, from whatever port, and is never
            read from: no address is learnt there and no frame is forwarded there for its destination.
    """

    fd: int
    framing: Framing
    rx_shared_fd: int | None = None
    rx_address: bytes | None = None
    encapsulation: Encapsulation | None = None
    monitor: bool = False


class ReservedPolicy(enum.Enum):
    """What becomes of a frame to 01-80-C2-00-00-00 up to -0F, which bridges do not forward.

    Source: IEEE 802.1Q-2018 8.6.3, table 8-1.
    """

    #: Forwarded as to any group: guests speak STP, LACP, LLDP and 802.1X through the switch.
    TRANSPARENT = "transparent"
    #: Dropped, as a bridge does that speaks none of these itself.
    BRIDGE = "bridge"
    #: The switch's own: handed to its control protocols, and not forwarded.
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class PortConfig:
    """What a port is told to be; it goes by the number, whatever is plugged in there.

    Attributes:
        vlan: What it does with tags; ``None`` for a transparent port: it does not look at them.  All
            transparent ports are one broadcast domain, and no frame goes between it and a VLAN.
        reserved: What becomes of frames to reserved addresses that come from here.
    """

    vlan: PortVlan | None = None
    reserved: ReservedPolicy = ReservedPolicy.TRANSPARENT


@dataclass(frozen=True, slots=True)
class MirrorSession:
    """Copies of what goes over some ports, or is of some VLANs, go to one more port.

    The destination takes no part in switching: nothing else is sent there, and what comes from there is
    dropped as ``mirror``; so no copy comes back, whatever is plugged in.  A frame is copied once at most,
    with the tag that it came with, and only if it is forwarded.

    Attributes:
        name: Of the session.
        destination: The port that gets the copies.
        ports: Whose frames are copied,
        ingress: those that come from there,
        egress: and those that go there.
        vids: VLANs whose frames are copied.

    Raises:
        ValueError: Nothing to copy, no direction, or the destination is a port that is copied.
    """

    name: str
    destination: int
    ports: frozenset[int] = frozenset()
    vids: VidSet = NO_VIDS
    ingress: bool = True
    egress: bool = True

    def __post_init__(self) -> None:
        if not self.ports and not self.vids:
            raise ValueError(f"mirror {self.name}: no port and no VLAN to copy from")
        if self.destination in self.ports:
            raise ValueError(f"mirror {self.name}: port {self.destination} cannot be copied to itself")
        if self.ports and not (self.ingress or self.egress):
            raise ValueError(f"mirror {self.name}: neither ingress nor egress is copied")


@dataclass(frozen=True, slots=True)
class SwitchConfig:
    """One switch.

    Attributes:
        hub: Forward everything everywhere; addresses are learnt, to be seen, and never looked up.
        ageing_time_ns: Nanoseconds after which an unseen address is forgotten (802.1Q default: 300 s).
        fdb_capacity: Most addresses that are learnt at once; more are counted as refused.
        max_frame: Bytes of the longest frame that is forwarded, without FCS.
        egress_queue_depth: Frames that wait for a port whose guest does not read; more are tail drops.
        first_port_no: The lowest port number; a new port takes the lowest free one.
        ports: What ports are told to be, by number, whether something is plugged in or not; the others are
            as ``PortConfig()``.
        mirrors: Sessions, each of another name.
    """

    hub: bool = False
    ageing_time_ns: int = 300 * SECOND_NS
    fdb_capacity: int = 65_536
    max_frame: int = 9018
    egress_queue_depth: int = 512
    first_port_no: int = 1
    ports: Mapping[int, PortConfig] = field(default_factory=dict)
    mirrors: tuple[MirrorSession, ...] = ()

    def __post_init__(self) -> None:
        for name, least, most in (
            ("ageing_time_ns", 1, MAX_AGEING_NS),
            ("fdb_capacity", 0, MAX_FDB_CAPACITY),
            ("max_frame", MIN_FRAME, 65_535),
            ("egress_queue_depth", 1, MAX_QUEUE_DEPTH),
            ("first_port_no", 1, 65_535),
        ):
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name} must be between {least} and {most}")
        self._check_ports(self.ports)
        self._check_mirrors()

    def _check_ports(self, numbers: Iterable[int], whose: str = "") -> None:
        for port_no in numbers:
            if not self.first_port_no <= port_no <= MAX_PORT_NO:
                raise ValueError(
                    f"{whose}port {port_no} is not between {self.first_port_no} and {MAX_PORT_NO}"
                )

    def _check_mirrors(self) -> None:
        if len(self.mirrors) > MAX_MIRRORS:
            raise ValueError(f"a switch has at most {MAX_MIRRORS} mirror sessions")
        names = [each.name for each in self.mirrors]
        if len(set(names)) < len(names):
            raise ValueError("two mirror sessions have one name")
        for each in self.mirrors:
            self._check_ports((each.destination, *each.ports), f"mirror {each.name}: ")
            for other in self.mirrors:
                if each.destination in other.ports:
                    raise ValueError(
                        f"mirror {other.name}: port {each.destination} gets the copies of mirror {each.name}"
                    )
