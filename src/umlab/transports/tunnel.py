"""Frames in messages between two IP addresses: what L2TPv3 and GRE have in common."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Encapsulation, Framing, Link
from umlab.transports._drain import drain
from umlab.transports.contract import Argument, KeptSession, Session, SessionSink, nothing_to_close
from umlab.transports.option_list import OptionList

#: Bytes of messages that wait in either direction; the kernel may give less.
_BUFFER = 1 << 20

#: An address as the socket module has it: host and port, and for IPv6 two numbers more.
Address = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Socket:
    """What kind of socket carries the messages.

    Attributes:
        family: ``socket.AF_INET`` or ``AF_INET6``.
        kind: ``socket.SOCK_DGRAM`` for UDP, or ``SOCK_RAW``.
        protocol: The IP protocol of a raw socket, 0 for UDP.
    """

    family: socket.AddressFamily
    kind: socket.SocketKind
    protocol: int

    @property
    def ip_header(self) -> bool:
        """Whether an IP header comes in front of what is read."""
        return self.kind == socket.SOCK_RAW and self.family == socket.AF_INET

    def address(self, options: OptionList, host: str, port: str) -> Address:
        """Return the address that two options give; a raw socket's has no port.

        Raises:
            TransportError: One is missing, or no number.
        """
        number = options.number(port, 16) if self.kind == socket.SOCK_DGRAM else 0
        name = options.text(host)
        try:
            # A name would have to be looked up, which may take long.
            found = socket.getaddrinfo(name, number, self.family, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)
        except (OSError, UnicodeError):
            family = "IPv6" if self.family == socket.AF_INET6 else "IPv4 (or v6=1 is missing)"
            raise options.error(f"{host}={name} is no address of {family}") from None
        return found[0][4]

    def open(self, address: Address, peer: Address | None, *, shared: bool = False) -> socket.socket:
        """Return a non-blocking socket that is bound, and connected where there is a peer.

        What others send to a connected one the kernel refuses; what came before is dropped.

        Args:
            address: Where to bind.
            peer: Whom to connect to.
            shared: Whether another such socket of ours may be bound there too.

        Raises:
            OSError: It cannot be had.
        """
        sock = socket.socket(self.family, self.kind | socket.SOCK_NONBLOCK, self.protocol)
        try:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            # A raw socket of IPv6 has no IPv4 in it, and takes no such option.
            if self.family == socket.AF_INET6 and self.kind == socket.SOCK_DGRAM:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
            if peer is not None:
                sock.connect(peer)
                drain(sock)
        except BaseException:
            sock.close()
            raise
        return sock


def printable(address: Address) -> str:
    """Return an address for people: ``127.0.0.1:1701``, ``[::1]:1701``, without the port where it is 0."""
    host, port = address[:2]
    if not port:
        return str(host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cannot_open(kind: str, address: Address, error: OSError) -> TransportError:
    """Return the error for an address where no socket can be had; says what helps."""
    reason = error.strerror or str(error)
    if error.errno == errno.EPERM:
        reason += "; a raw IP socket needs the capability CAP_NET_RAW, which root has"
    return TransportError(f"{kind} {printable(address)}: {reason}")


class TunnelListener:
    """A tunnel to a peer that is known: one port at once, which stays whether the peer is there or not.

    Args:
        kind: The transport.
        where: The place, for people.
        sort: What kind of socket carries it.
        address: Where it is bound.
        peer: The other end.
        encapsulation: What lies in front of each frame.
        arguments: How the peer is told to attach.
    """

    def __init__(
        self,
        kind: str,
        where: str,
        sort: Socket,
        address: Address,
        peer: Address,
        encapsulation: Encapsulation,
        arguments: tuple[Argument, ...],
    ) -> None:
        self.kind = kind
        self.where = where
        self.arguments = arguments
        self._sort = sort
        self._address = address
        self._peer = peer
        self._encapsulation = encapsulation

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Open the socket and give it a port; see :class:`umlab.transports.contract.Listener`."""
        if kept is not None:
            # Its port is resumed, or somebody had taken it away.
            return
        try:
            fd = self._sort.open(self._address, self._peer).detach()
        except OSError as error:
            raise cannot_open(self.kind, self._address, error) from None
        try:
            sink.session_opened(self._session(fd))
        except (SwitchError, StateError) as error:
            os.close(fd)
            raise TransportError(f"{self.kind} {printable(self._address)}: {error}") from None

    async def close(self) -> None:
        """Do nothing: the engine closes the socket."""

    def descriptors(self) -> dict[str, int]:
        """Return nothing: the port is all there is."""
        return {}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with the socket; a counter begins anew, which no peer looks at."""
        (fd,) = kept.fds
        return self._session(fd)

    def _session(self, fd: int) -> Session:
        link = Link(fd, Framing.DATAGRAM, encapsulation=self._encapsulation)
        return Session(self.kind, link, None, printable(self._peer), nothing_to_close)
