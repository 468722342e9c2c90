"""QEMU's ``-netdev dgram``: one frame is one datagram between two addresses that both ends are told.

Over UDP the port is there from the start.  A unix socket can be connected to only while the peer's is
there, so the port comes with the file at the peer's path, or with the first datagram; it goes when the
peer has gone, and comes back with it.  Either way our socket is connected: nobody else can send to it, and
what came before it was is dropped.

Source: QEMU net/dgram.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import shlex
import socket
from collections.abc import Callable, Mapping

from umlab.errors import StateError, SwitchError, TransportError, UmlabError
from umlab.switch.model import Framing, Link
from umlab.transports._drain import drain
from umlab.transports._endpoint import (
    Address,
    family_of,
    format_address,
    parse_address,
    resolve_address,
)
from umlab.transports.contract import (
    MAX_ID,
    PRIVATE,
    Access,
    Argument,
    KeptSession,
    Peer,
    Session,
    SessionSink,
    Transport,
)
from umlab.transports.socketfile import SocketFile, take_socket

#: Seconds between two looks at the peer.
INTERVAL = 1.0
#: Bytes of frames on their way in either direction; the kernel may give less.
_BUFFER = 1 << 20


class DgramListener:
    """A socket that is connected to a peer's, one port.

    Args:
        local: Where it is bound: a path, or a host and a port.
        remote: Where the peer's is, of the same kind.
        access: Who may send to ``local``, where that is a path.

    Raises:
        TransportError: The two are of different kinds.
    """

    kind = "dgram"

    def __init__(self, local: Address, remote: Address, access: Access = PRIVATE) -> None:
        self.where = f"{format_address(local)},{format_address(remote)}"
        if family_of(local) != family_of(remote):
            raise TransportError(f"{self.where}: both must be paths, or addresses of one kind")
        self.arguments = (_argument(local, remote),)
        self._local = local
        self._remote = remote
        self._access = access
        self._bound: SocketFile | socket.socket | None = None
        self._socket: socket.socket
        self._session: Session | None = None
        self._identity: _Identity | None = None
        self._told = False
        self._timer: asyncio.TimerHandle
        self._loop: asyncio.AbstractEventLoop
        self._sink: SessionSink

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Bind, and connect as soon as the peer is there; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        if isinstance(self._local, str):
            file = take_socket(self._local, socket.SOCK_DGRAM, kept, "socket", self._access)
            self._bound, self._socket = file, file.socket
        else:
            self._socket = _bind(self._local) if kept is None else socket.socket(fileno=kept["socket"])
            self._bound = self._socket
        self._socket.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        # A port that was kept is resumed before the first look.
        self._timer = self._loop.call_later(INTERVAL, self._look)
        if kept is None:
            self._connect()

    async def close(self) -> None:
        """Close the socket and remove its file; the port's duplicate belongs to the engine."""
        if self._bound is not None:
            self._timer.cancel()
            self._loop.remove_reader(self._socket)
            self._bound.close()
            self._bound = None

    def descriptors(self) -> dict[str, int]:
        """Return the socket."""
        return {} if self._bound is None else {"socket": self._socket.fileno()}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with the port."""
        (fd,) = kept.fds
        identity = kept.state["identity"]
        self._identity = None if identity is None else tuple(identity)
        self._session = self._session_of(fd, kept.peer)
        return self._session

    def _look(self) -> None:
        """See whether the peer is there; once a second."""
        self._timer = self._loop.call_later(INTERVAL, self._look)
        session = self._session
        if session is not None and self._is_gone():
            self._ended()
            self._sink.session_closed(session)
        if self._session is None:
            self._connect()

    def _connect(self) -> None:
        """Have a port if the peer is there, and watch for its first datagram if not."""
        self._loop.remove_reader(self._socket)
        fd = -1
        try:
            peer = self._reach()
            fd = os.dup(self._socket.fileno())
            session = self._session_of(fd, peer)
            self._sink.session_opened(session)
        except (OSError, SwitchError, StateError) as error:
            if fd >= 0:
                os.close(fd)
            self._refuse(error)
            drain(self._socket)
            self._loop.add_reader(self._socket, self._connect)
            return
        self._session = session
        self._told = False

    def _reach(self) -> Peer | None:
        """Connect the socket, and drop what came before it was.

        Returns:
            Whose the peer's socket is, where it has a file.

        Raises:
            OSError: The peer is not there, or is connected to somebody else.
        """
        if isinstance(self._remote, tuple):
            self._socket.connect(self._remote)
            self._discard()
            return None
        # The descriptor keeps the file from being exchanged after the look at its owner.
        fd = os.open(self._remote, os.O_PATH | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            self._socket.connect(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
        self._identity = _identity_of(status)
        self._discard()
        return _owner(status.st_uid)

    def _discard(self) -> None:
        """Drop what waits in the socket; the peer's own is among that of others."""
        strangers = sum(map(self._is_strange, drain(self._socket)))
        if strangers:
            where = format_address(self._local)
            self._sink.session_refused(
                self.kind, TransportError(f"{where}: {strangers} frames of strangers are dropped"), None
            )

    def _is_strange(self, sender: object) -> bool:
        if isinstance(self._remote, str):
            return sender != self._remote
        return not isinstance(sender, tuple) or sender[:2] != self._remote

    def _is_gone(self) -> bool:
        """Tell whether the peer's unix socket is closed, or another one is in its place.

        A file that is gone says nothing: somebody may have removed it under a living peer.
        """
        if not isinstance(self._remote, str):
            return False
        try:
            # The kernel undoes the connection when a frame meets a closed socket.
            self._socket.getpeername()
            if _identity_of(os.stat(self._remote)) != self._identity:
                return True
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
                probe.connect(self._remote)
        except OSError as error:
            return error.errno in (errno.ENOTCONN, errno.ECONNREFUSED)
        return False

    def _refuse(self, error: OSError | SwitchError | StateError) -> None:
        """Report, once until it works, why there is no port."""
        if self._told:
            return
        self._told = True
        if isinstance(error, OSError):
            reason = f"cannot connect to {format_address(self._remote)}: {error.strerror}"
            reported: UmlabError = TransportError(f"{reason}; tried again every {INTERVAL:g} s")
        else:
            reported = error
        self._sink.session_refused(self.kind, reported, None)

    def _session_of(self, fd: int, peer: Peer | None) -> Session:
        link = Link(fd, Framing.DATAGRAM)
        state = {"identity": self._identity}
        return Session(self.kind, link, peer, format_address(self._remote), self._ended, (), state)

    def _ended(self) -> None:
        """Take note that the port is gone; the next look makes another."""
        self._session = None


def _owner(uid: int) -> Peer:
    """Return a user with the groups that the system has for it; a file may have its directory's group."""
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return Peer(0, uid, MAX_ID, None)
    return Peer(0, uid, user.pw_gid, None, tuple(os.getgrouplist(user.pw_name, user.pw_gid)))


#: Device, inode and when it was made: an inode's number is soon used again.
_Identity = tuple[int, ...]


def _identity_of(status: os.stat_result) -> _Identity:
    return status.st_dev, status.st_ino, status.st_mtime_ns


def _bind(address: tuple[str, int]) -> socket.socket:
    with contextlib.ExitStack() as opened:
        try:
            sock = opened.enter_context(socket.socket(family_of(address), socket.SOCK_DGRAM))
            sock.bind(address)
        except OSError as error:
            raise TransportError(f"cannot bind {format_address(address)}: {error.strerror}") from None
        opened.pop_all()
    return sock


def _argument(local: Address, remote: Address) -> Argument:
    """Return what QEMU is told: our local address is its remote one."""
    words = ["dgram", "id=n0"]
    for side, address in (("local", remote), ("remote", local)):
        if isinstance(address, str):
            words += [f"{side}.type=unix", f"{side}.path={os.path.abspath(address)}"]
        else:
            words += [f"{side}.type=inet", f"{side}.host={address[0]}", f"{side}.port={address[1]}"]
    return Argument("qemu", f"-netdev {shlex.quote(','.join(words))} -device virtio-net-pci,netdev=n0")


def _make(place: str, access: Access) -> DgramListener:
    return DgramListener(*_both(place), access)


def _both(place: str) -> tuple[Address, Address]:
    local, comma, remote = place.partition(",")
    if not comma:
        raise TransportError(f"{place!r} has no peer; write LOCAL,REMOTE")
    return parse_address(local), parse_address(remote)


def _resolve(place: str, absolute: Callable[[str], str]) -> str:
    return ",".join(resolve_address(format_address(each), absolute) for each in _both(place))


TRANSPORT = Transport("dgram", "dgram:LOCAL,REMOTE", _make, resolve=_resolve)
