"""UML's ``daemon`` transport: a control socket where guests ask for ports, a data socket for each.

The control connection is the lease: as long as it is open the guest has its port.  Each v1 and v3
guest gets a data socket of its own, connected to the guest's, so that only the guest can send to it
and a full guest can be waited for.  v0 has no reply that could name such a socket; all its guests
send to one socket at a path that they were told beforehand, and their addresses tell them apart.

A dump is attached in the same way and is a monitor: it is sent every frame, and whatever it sends stays
unread.

Source: Linux arch/um/drivers/daemon_user.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Mapping
from typing import Any

from umlab._descriptor_limit import descriptor_limit_hint
from umlab.errors import (
    OversizeMessage,
    RemoteProtocolError,
    StateError,
    SwitchError,
    TransportError,
    TruncatedMessage,
    UmlabError,
)
from umlab.switch.model import Framing, Link
from umlab.transports.acceptor import Acceptor
from umlab.transports.contract import (
    PRIVATE,
    Access,
    Argument,
    KeptSession,
    Session,
    SessionSink,
    Transport,
)
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile, take_socket
from umlab.wire import sockaddr
from umlab.wire.daemon import (
    MAX_ATTACH_REQUEST,
    PADDED_V3,
    AttachRequest,
    parse_attach_request,
    serialize_attach_reply,
)

#: What a v3 guest may send behind its request.
_PADDING = 2
#: Seconds in which a connection has to send its whole request.
HELLO_TIMEOUT = 10.0
#: Connections that may be without a request at a time; one more, and the oldest is closed.
MAX_SILENT = 128
#: Bytes of frames on their way to a guest; the kernel may give less.
_SEND_BUFFER = 1 << 20
#: Our sockets, in the order of their paths.
_SOCKETS = (("control", socket.SOCK_STREAM), ("data", socket.SOCK_DGRAM))


class DaemonListener:
    """A control socket, and with ``data_path`` the v0 data socket beside it.

    Args:
        control_path: At most 107 bytes.
        data_path: Where v0 guests send; without it they are refused.
        control: The control socket where it is there already; belongs to the listener.
        access: Who may attach.
    """

    kind = "daemon"

    def __init__(
        self,
        control_path: str | os.PathLike[str],
        data_path: str | os.PathLike[str] | None = None,
        control: SocketFile | None = None,
        access: Access = PRIVATE,
    ) -> None:
        self._paths = [os.fspath(path) for path in (control_path, data_path) if path is not None]
        self.where = ",".join(self._paths)
        # A guest's directory is another one.
        guest = f"eth0=daemon,,unix,{','.join(map(os.path.abspath, self._paths))}"
        self.arguments = (Argument("uml", guest, "daemon"),)
        self._access = access
        self._files = [] if control is None else [control]
        self._acceptor: Acceptor | None = None
        self._connections: set[_Connection] = set()
        #: Those without a request yet, oldest first (a dict keeps its order).
        self._silent: dict[_Connection, None] = {}
        self.sink: SessionSink

    @property
    def data_socket(self) -> socket.socket | None:
        """The data socket of v0 guests, if they are served."""
        return self._files[1].socket if len(self._files) > 1 else None

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Bind and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        self.sink = sink
        try:
            for path, (name, kind) in list(zip(self._paths, _SOCKETS, strict=False))[len(self._files) :]:
                self._files.append(take_socket(path, kind, kept, name, self._access))
        except BaseException:
            for file in self._files if kept is not None else ():
                # Still the caller's.
                file.socket.detach()
            await self.close()
            raise
        self._acceptor = Acceptor(self._files[0].socket, self._paths[0], self._take)

    async def close(self) -> None:
        """Accept no more, end every session without reporting it, remove the sockets."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        for connection in list(self._connections):
            connection.close()
        while self._files:
            self._files.pop().close()

    def descriptors(self) -> dict[str, int]:
        """Return the control socket, and the data socket of v0 guests where they are served."""
        return {name: file.socket.fileno() for (name, _), file in zip(_SOCKETS, self._files, strict=False)}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with a guest's data socket and its control connection.

        Raises:
            TransportError: The guest is of protocol v0, which is not served any more.
        """
        link_fd, control_fd = kept.fds
        address = bytes.fromhex(kept.state["address"]) if "address" in kept.state else None
        if address is not None and self.data_socket is None:
            raise TransportError("guests of protocol v0 are not served any more")
        control = socket.socket(fileno=control_fd)
        try:
            connection = _Connection(self, control)
        except BaseException:
            control.detach()
            raise
        self._connections.add(connection)
        return connection.resume(link_fd, kept, address)

    def _take(self, sock: socket.socket) -> None:
        connection = _Connection(self, sock)
        self._connections.add(connection)
        self._silent[connection] = None
        connection.receive()
        if len(self._silent) > MAX_SILENT:
            oldest = next(iter(self._silent))
            # Its request may have come since the loop last looked.
            oldest.receive()
            if oldest in self._silent:
                oldest.refuse(TransportError(f"more than {MAX_SILENT} connections have not asked for a port"))

    def connection_spoke(self, connection: _Connection) -> None:
        """Take note that a connection has sent its request."""
        self._silent.pop(connection, None)

    def connection_left(self, connection: _Connection) -> None:
        """Forget a connection."""
        self._silent.pop(connection, None)
        self._connections.discard(connection)


class _Connection:
    """One control connection: a request, a reply, and then silence until it ends."""

    def __init__(self, listener: DaemonListener, sock: socket.socket) -> None:
        self._listener = listener
        self._socket = sock
        self._peer = peer_of(sock)
        self._received = b""
        #: Bytes that the guest may send, its request included.
        self._limit = MAX_ATTACH_REQUEST
        #: What the end of the connection would mean now.
        self._incomplete = TruncatedMessage(4, 0)
        self._session: Session | None = None
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self.receive)
        self._deadline = self._loop.call_later(HELLO_TIMEOUT, self._late)

    def receive(self) -> None:
        """Read what there is; acts on a request, on bytes that should not be there, and on the end."""
        try:
            data = self._socket.recv(self._limit + 1 - len(self._received))
        except BlockingIOError:
            return
        except OSError:
            # As when the guest's process died and left our reply unread.
            data = b""
        if not data:
            self._ended()
            return
        self._received += data
        if self._session is not None:
            self._check_silence(self._session)
            return
        try:
            request = parse_attach_request(self._received, v0=self._listener.data_socket is not None)
        except TruncatedMessage as error:
            self._incomplete = error
        except RemoteProtocolError as error:
            self.refuse(error)
        else:
            self._attach(request)

    def refuse(self, reason: UmlabError) -> None:
        """Close the connection and report why it gets no port."""
        self.close()
        self._listener.sink.session_refused(self._listener.kind, reason, self._peer)

    def close(self) -> None:
        """End the connection without a report.  Idempotent."""
        if not self._open:
            return
        self._open = False
        self._deadline.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._listener.connection_left(self)

    def _late(self) -> None:
        self.refuse(TransportError(f"no whole request in {HELLO_TIMEOUT:g} seconds"))

    def _attach(self, request: AttachRequest) -> None:
        self._deadline.cancel()
        self._listener.connection_spoke(self)
        # The two bytes of padding may come late; every other byte is one too many from here on.
        self._limit = max(len(self._received), PADDED_V3 if request.version == 3 else 0)
        shared = self._listener.data_socket if request.version == 0 else None
        name = None if shared is not None else sockaddr.pad_path(b"\0umlab-" + os.urandom(16).hex().encode())
        try:
            data_socket = _open_data_socket(request.path, name, self._peer.uid)
        except TransportError as error:
            self.refuse(error)
            return
        address = None if shared is None else request.path
        detail = "dump" if request.dump else f"v{request.version}"
        session = self._open_session(data_socket.fileno(), detail, address, dump=request.dump)
        try:
            self._listener.sink.session_opened(session)
        except (SwitchError, StateError) as error:
            data_socket.close()
            self.refuse(error)
            return
        data_socket.detach()
        self._session = session
        if name is not None:
            self._reply(name)

    def resume(self, link_fd: int, kept: KeptSession, address: bytes | None) -> Session:
        """Take up a session; see :class:`DaemonListener`."""
        self._deadline.cancel()
        self._peer = kept.peer or self._peer
        # What it sent as its request is gone; from now on every byte is one too many, but for the padding.
        self._limit = _PADDING
        dump = bool(kept.state.get("dump"))
        self._session = self._open_session(link_fd, kept.detail, address, dump=dump)
        return self._session

    def _open_session(self, data_fd: int, detail: str, address: bytes | None, *, dump: bool) -> Session:
        """Return a session; ``address`` is what tells a v0 guest on the socket that all such share."""
        link = Link(data_fd, Framing.DATAGRAM, monitor=dump)
        state: dict[str, Any] = {"dump": True} if dump else {}
        shared = self._listener.data_socket
        if address is not None and shared is not None:
            link = Link(data_fd, Framing.DATAGRAM, shared.fileno(), address)
            state["address"] = address.hex()
        control = (self._socket.fileno(),)
        return Session(self._listener.kind, link, self._peer, detail, self.close, control, state)

    def _reply(self, name: bytes) -> None:
        # Where nobody reads it any more, the end of the stream is what we read next.
        with contextlib.suppress(OSError):
            self._socket.send(serialize_attach_reply(name), socket.MSG_NOSIGNAL)

    def _check_silence(self, session: Session) -> None:
        """Close a session whose guest says more than its request, which no guest does."""
        if len(self._received) > self._limit:
            self.close()
            self._listener.sink.session_closed(session)
            self.refuse(OversizeMessage(len(self._received), self._limit))

    def _ended(self) -> None:
        if self._session is None:
            self.refuse(self._incomplete)
            return
        self.close()
        self._listener.sink.session_closed(self._session)


def _open_data_socket(path: bytes, name: bytes | None, uid: int) -> socket.socket:
    """Return a socket that is connected to the guest's, and bound to a 108-byte name if one is given.

    Raises:
        TransportError: There is no such socket, it takes no datagrams from us, or it is not the user's.
    """
    sock: socket.socket | None = None
    try:
        address = sockaddr.socket_address(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        # Connected first: from its first instant under a name it takes frames of this guest only.
        if address[0] == 0:
            sock.connect(address)
        else:
            _connect_to_file(sock, address, uid)
        if name is not None:
            sock.bind(name)
    except (OSError, ValueError) as error:
        if sock is not None:
            sock.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            reason = f"{reason} ({descriptor_limit_hint()})"
        shown = sockaddr.printable(path)
        raise TransportError(f"the guest's data socket {shown} cannot be reached: {reason}") from None
    return sock


def _connect_to_file(sock: socket.socket, path: bytes, uid: int) -> None:
    """Connect to a socket file that belongs to a user, or to any one for root.

    A switch may be allowed to write to sockets that its guests are not, such as those of the system's
    services; it must not carry frames there for them.  The descriptor keeps the file from being
    exchanged after the look at its owner.

    Raises:
        OSError: There is no such socket, or it cannot be connected to.
        ValueError: It belongs to somebody else.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        if uid not in (0, os.fstat(fd).st_uid):
            raise ValueError("it belongs to another user")
        sock.connect(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _make(place: str, access: Access) -> DaemonListener:
    control, _, data = place.partition(",")
    return DaemonListener(control, data or None, access=access)


TRANSPORT = Transport(
    "daemon",
    "daemon:CTL[,DATA]",
    _make,
    resolve=lambda place, absolute: ",".join(absolute(path) for path in place.split(",", 1) if path),
    default="{}.ctl",
)
