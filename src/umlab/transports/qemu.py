"""QEMU's ``-netdev stream``: each frame behind its length on a unix or TCP stream, in either direction.

There is no handshake: a connection is a session, and the engine sees its end.  ``qemu:PATH`` and
``qemu:HOST:PORT`` listen; ``qemu:connect=...`` connects to who listens, such as passt or a QEMU with
``server=on``, and again whenever that comes back.

Source: QEMU net/stream.c, net/net.c; passt(1).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import shlex
import socket
from collections.abc import Callable, Mapping

from umlab.errors import StateError, SwitchError, TransportError
from umlab.switch.model import Framing, Link
from umlab.transports._endpoint import (
    Address,
    family_of,
    format_address,
    parse_address,
    resolve_address,
)
from umlab.transports.acceptor import Acceptor
from umlab.transports.contract import (
    PRIVATE,
    Access,
    Argument,
    KeptSession,
    Listener,
    Peer,
    Session,
    SessionSink,
    Transport,
)
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile, take_socket

#: Connections of one listener at a time.  One that says nothing may be a guest that says nothing.
MAX_CONNECTIONS = 1024
#: Seconds between two attempts to connect.
RETRY = 1.0
#: Seconds that an attempt may take.
CONNECT_TIMEOUT = 10.0
_CONNECT = "connect="
_BACKLOG = 128
#: A remote end that is silent for half a minute is asked, and given up after three questions.  No time is set
#: for what it does not take: it may be a machine that stands still (TCP_USER_TIMEOUT would end it).
_TCP_OPTIONS = (
    # A frame that waits for the next one is late.
    (socket.TCP_NODELAY, 1),
    (socket.TCP_KEEPIDLE, 30),
    (socket.TCP_KEEPINTVL, 10),
    (socket.TCP_KEEPCNT, 3),
)
_DEVICE = "-device virtio-net-pci,netdev=n0"


class QemuListener:
    """An address to which any number of QEMUs connect, each connection a port.

    Args:
        address: A path, or a host and a port.
        access: Who may attach; a TCP port is open to whoever reaches it.
    """

    kind = "qemu"

    def __init__(self, address: Address, access: Access = PRIVATE) -> None:
        self.where = format_address(address)
        self.arguments = (_argument(address, server="off"),)
        self._address = address
        self._access = access
        self._listener: SocketFile | socket.socket | None = None
        #: One object for each.
        self._connections: set[object] = set()
        self._acceptor: Acceptor
        self._sink: SessionSink

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Bind and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        if isinstance(self._address, str):
            file = take_socket(self._address, socket.SOCK_STREAM, kept, "listener", self._access)
            self._listener, sock = file, file.socket
        else:
            sock = _listen(self._address) if kept is None else socket.socket(fileno=kept["listener"])
            sock.setblocking(False)
            self._listener = sock
        self._acceptor = Acceptor(sock, self.where, self._open)

    async def close(self) -> None:
        """Accept no more and remove the socket; the connections belong to the engine."""
        if self._listener is not None:
            self._acceptor.close()
            self._listener.close()
            self._listener = None

    def descriptors(self) -> dict[str, int]:
        """Return the listening socket."""
        if self._listener is None:
            return {}
        sock = self._listener.socket if isinstance(self._listener, SocketFile) else self._listener
        return {"listener": sock.fileno()}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with a connection; its end, if it came meanwhile, is the engine's to see."""
        (fd,) = kept.fds
        return self._session(fd, kept.peer, kept.detail)

    def _open(self, sock: socket.socket) -> None:
        peer, detail = _far_end(sock)
        session = self._session(sock.fileno(), peer, detail)
        try:
            if len(self._connections) > MAX_CONNECTIONS:
                raise SwitchError(f"{self.where}: more than {MAX_CONNECTIONS} connections")
            self._sink.session_opened(session)
        except (SwitchError, StateError) as error:
            session.close()
            sock.close()
            self._sink.session_refused(self.kind, error, peer)
            return
        sock.detach()

    def _session(self, fd: int, peer: Peer | None, detail: str) -> Session:
        connection = object()
        self._connections.add(connection)
        return _session(fd, peer, detail, functools.partial(self._connections.discard, connection))


class QemuConnector:
    """An address that is connected to, one port: a QEMU that listens, or passt as a way out.

    Where nobody listens, or the connection ends, it is tried again every second; that is reported once.

    Args:
        address: A path, or a host and a port.
    """

    kind = "qemu"

    def __init__(self, address: Address) -> None:
        self.where = _CONNECT + format_address(address)
        self.arguments = (_argument(address, server="on"),)
        self._address = address
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sink: SessionSink

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Begin to connect; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        self._ended.set()
        # A connection that was kept is resumed before the first pause is over.
        self._task = asyncio.create_task(self._stay_connected(0 if kept is None else RETRY))

    async def close(self) -> None:
        """Connect no more; the connection belongs to the engine."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    def descriptors(self) -> dict[str, int]:
        """Return nothing: the port is all there is."""
        return {}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with the connection."""
        (fd,) = kept.fds
        self._ended.clear()
        return _session(fd, kept.peer, kept.detail, self._ended.set)

    async def _stay_connected(self, pause: float) -> None:
        told = False
        while True:
            await self._ended.wait()
            await asyncio.sleep(pause)
            pause = RETRY
            if not self._ended.is_set():
                continue
            try:
                await self._open()
                told = False
            except (TransportError, SwitchError, StateError) as error:
                if not told:
                    self._sink.session_refused(self.kind, error, None)
                told = True

    async def _open(self) -> None:
        sock = await _connect(self._address)
        peer, detail = _far_end(sock)
        try:
            self._sink.session_opened(_session(sock.fileno(), peer, detail, self._ended.set))
        except (SwitchError, StateError):
            sock.close()
            raise
        self._ended.clear()
        sock.detach()


def _session(fd: int, peer: Peer | None, detail: str, close: Callable[[], None]) -> Session:
    return Session("qemu", Link(fd, Framing.STREAM), peer, detail, close)


def _far_end(sock: socket.socket) -> tuple[Peer | None, str]:
    """Return which process is at the other end of a connection, or the address where that may be anywhere."""
    if sock.family == socket.AF_UNIX:
        return peer_of(sock), ""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _TCP_OPTIONS:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
        host, port, *_ = sock.getpeername()
    except OSError:
        # It has gone already, as the engine will see.
        return None, ""
    return None, format_address((host, port))


def _listen(address: tuple[str, int]) -> socket.socket:
    with contextlib.ExitStack() as opened:
        try:
            sock = opened.enter_context(_stream(address))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(address)
            sock.listen(_BACKLOG)
        except OSError as error:
            raise TransportError(f"cannot listen on {format_address(address)}: {error.strerror}") from None
        opened.pop_all()
    return sock


def _stream(address: Address) -> socket.socket:
    return socket.socket(family_of(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


async def _connect(address: Address) -> socket.socket:
    """Return a connected socket.

    Raises:
        TransportError: Nobody is there, or nobody answers.
    """
    with contextlib.ExitStack() as opened:
        try:
            sock = opened.enter_context(_stream(address))
            if isinstance(address, str):
                # Is done at once, and EAGAIN is no promise: who listens has no room for one more.
                sock.connect(address)
            else:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await asyncio.get_running_loop().sock_connect(sock, address)
                if sock.getsockname() == sock.getpeername():
                    # Of this host's free ports, the kernel chose the very one where nobody listens.
                    raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        except OSError as error:
            reason = error.strerror or "no answer"
            where = format_address(address)
            raise TransportError(
                f"cannot connect to {where}: {reason}; tried again every {RETRY:g} s"
            ) from None
        opened.pop_all()
    return sock


def _argument(address: Address, *, server: str) -> Argument:
    if isinstance(address, str):
        place = f"addr.type=unix,addr.path={os.path.abspath(address)}"
    else:
        place = f"addr.type=inet,addr.host={address[0]},addr.port={address[1]}"
    netdev = shlex.quote(f"stream,id=n0,server={server},{place}")
    return Argument("qemu", f"-netdev {netdev} {_DEVICE}")


def _make(place: str, access: Access) -> Listener:
    if place.startswith(_CONNECT):
        return QemuConnector(parse_address(place.removeprefix(_CONNECT)))
    return QemuListener(parse_address(place), access)


def _resolve(place: str, absolute: Callable[[str], str]) -> str:
    prefix = _CONNECT if place.startswith(_CONNECT) else ""
    return prefix + resolve_address(place.removeprefix(prefix), absolute)


TRANSPORT = Transport(
    "qemu",
    "qemu:[connect=]ADDRESS",
    _make,
    resolve=_resolve,
    default="{}.qemu",
)
