"""The multicast group of UML's ``mcast`` and QEMU's ``-netdev socket,mcast=``: one port for all in it.

One frame is one UDP datagram to the group, and everybody hears everybody, so a group is a hub without a
middle.  We send from a socket of our own, whose port nobody else on this host has: by it the kernel drops
our own echo before it comes back to us, and two switches in one group hear each other.

Source: Linux arch/um/drivers/umcast_user.c; QEMU net/socket.c; Linux Documentation/networking/filter.rst.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Mapping

from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing, Link
from umlab.transports._bpf import (
    JUMP_IF_EQUAL,
    LOAD_HALF,
    LOAD_WORD,
    RETURN,
    WHOLE,
    Instruction,
    attach_filter,
)
from umlab.transports._endpoint import parse_host_port
from umlab.transports.contract import (
    Access,
    Argument,
    KeptSession,
    Session,
    SessionSink,
    Transport,
    nothing_to_close,
)

#: Hops that a frame goes, as far as the guests' own.
_TTL = 1
_ANY_INTERFACE = "0.0.0.0"
#: IP_MULTICAST_ALL (Linux include/uapi/linux/in.h): hear what any socket of this host is a member for.
_MULTICAST_ALL = 49
#: Bytes of frames that wait to be read; the kernel may give less.
_BUFFER = 1 << 20
_NON_BLOCKING = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
_NO_ROUTE = frozenset({errno.ENODEV, errno.ENETUNREACH})
#: Where a program finds the IP header (SKF_NET_OFF), and the sender in it.
_IP_SOURCE = (-0x100000 & 0xFFFF_FFFF) + 12


class McastListener:
    """A multicast group, which becomes one port at once.

    Args:
        group: Its IPv4 address.
        port: Its UDP port.
        interface: The address of the interface to be used; the system's choice unless given.

    Raises:
        TransportError: One of the two is not what it should be.
    """

    kind = "mcast"

    def __init__(self, group: str, port: int, interface: str = "") -> None:
        self.where = f"{group}:{port}" + (f",{interface}" if interface else "")
        if not _is_ipv4(group) or not ipaddress.ip_address(group).is_multicast:
            raise TransportError(f"{group} is not an IPv4 multicast address, 224.0.0.0 to 239.255.255.255")
        if interface and not _is_ipv4(interface):
            raise TransportError(f"{interface!r} is not the IPv4 address of an interface")
        local = f",localaddr={interface}" if interface else ""
        self.arguments = (
            Argument("uml", f"eth0=mcast,,{group},{port},{_TTL}", "mcast"),
            Argument(
                "qemu", f"-netdev socket,id=n0,mcast={group}:{port}{local} -device virtio-net-pci,netdev=n0"
            ),
        )
        self._group = (group, port)
        self._interface = socket.inet_aton(interface or _ANY_INTERFACE)
        self._receiver: socket.socket | None = None

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Join the group and give it a port; see :class:`umlab.transports.contract.Listener`."""
        if kept is not None:
            # Its port is resumed, or somebody had taken it away.
            self._receiver = socket.socket(fileno=kept["receiver"])
            return
        with contextlib.ExitStack() as opened:
            try:
                receiver, sender = (
                    opened.enter_context(socket.socket(socket.AF_INET, _NON_BLOCKING)) for _ in range(2)
                )
                self._join(receiver)
                self._aim(sender)
                attach_filter(receiver, _all_but(*sender.getsockname()))
                sink.session_opened(self._session(sender.fileno(), receiver))
            except (OSError, SwitchError, StateError) as error:
                raise TransportError(f"multicast group {self.where}: {_reason(error)}") from None
            opened.pop_all()
        sender.detach()
        self._receiver = receiver

    async def close(self) -> None:
        """Leave the group."""
        if self._receiver is not None:
            self._receiver.close()
            self._receiver = None

    def descriptors(self) -> dict[str, int]:
        """Return the socket that is in the group."""
        return {} if self._receiver is None else {"receiver": self._receiver.fileno()}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with the socket that sends; the other one has its membership and its program still."""
        (fd,) = kept.fds
        if self._receiver is None:
            raise TransportError(f"multicast group {self.where}: it was left")
        return self._session(fd, self._receiver)

    def _session(self, fd: int, receiver: socket.socket) -> Session:
        link = Link(fd, Framing.DATAGRAM, receiver.fileno(), b"")
        return Session(self.kind, link, None, self.where, nothing_to_close)

    def _join(self, sock: socket.socket) -> None:
        # All on this host who are in the group have its port.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        sock.setsockopt(socket.IPPROTO_IP, _MULTICAST_ALL, 0)
        sock.bind(self._group)
        membership = socket.inet_aton(self._group[0]) + self._interface
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)

    def _aim(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, self._interface)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _TTL)
        sock.connect(self._group)


def _all_but(host: str, port: int) -> tuple[Instruction, ...]:
    """Return a program for what comes from anywhere but an address."""
    return (
        Instruction(LOAD_HALF, 0),
        Instruction(JUMP_IF_EQUAL, port, 0, 3),
        Instruction(LOAD_WORD, _IP_SOURCE),
        Instruction(JUMP_IF_EQUAL, int(ipaddress.IPv4Address(host)), 0, 1),
        Instruction(RETURN, 0),
        Instruction(RETURN, WHOLE),
    )


def _reason(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    hint = "; name the address of an interface behind a comma" if error.errno in _NO_ROUTE else ""
    return f"{error.strerror}{hint}"


def _is_ipv4(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


def _make(place: str, access: Access) -> McastListener:
    group, _, interface = place.partition(",")
    return McastListener(*parse_host_port(group), interface)


TRANSPORT = Transport("mcast", "mcast:GROUP:PORT[,INTERFACE]", _make)
