"""UML's ``daemon`` transport: a control socket where guests ask for ports, a data socket for each.

The control connection is the lease: as long as it is open the guest has its port.  Each v1 and v3
guest gets a data socket of its own, connected to the guest's, so that only the guest can send to it
and a full guest can be waited for.  v0 has no reply that could name such a socket; all its guests
send to one socket at a path that they were told beforehand, and their addresses tell them apart.

Source: Linux arch/um/drivers/daemon_user.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

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
from umlab.transports.contract import Peer, Session, SessionSink
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile
from umlab.wire import sockaddr
from umlab.wire.daemon import (
    MAX_ATTACH_REQUEST,
    AttachRequest,
    parse_attach_request,
    serialize_attach_reply,
)

#: Seconds in which a connection has to send its whole request.
HELLO_TIMEOUT = 10.0
#: Connections that may be without a request at a time; one more, and the oldest is closed.
MAX_SILENT = 128
_BACKLOG = 128
#: Bytes of frames on their way to a guest; the kernel may give less.
_SEND_BUFFER = 1 << 20
#: Bytes of a v3 request with the kernel's padding; only these two bytes may come late.
_PADDED_V3 = 124


class DaemonListener:
    """A control socket, and with ``data_path`` the v0 data socket beside it.

    Args:
        control_path: At most 107 bytes.
        data_path: Where v0 guests send; without it they are refused.
    """

    kind = "daemon"

    def __init__(self, control_path: str, data_path: str | None = None) -> None:
        self.where = control_path if data_path is None else f"{control_path},{data_path}"
        self._control_path = control_path
        self._data_path = data_path
        self._control: SocketFile | None = None
        self._data: SocketFile | None = None
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[_Connection] = set()
        self._all_left = asyncio.Event()
        self._all_left.set()
        #: Those without a request yet, oldest first (a dict keeps its order).
        self._silent: dict[_Connection, None] = {}
        self.sink: SessionSink

    @property
    def data_socket(self) -> socket.socket | None:
        """The data socket of v0 guests, if they are served."""
        return self._data.socket if self._data else None

    async def start(self, sink: SessionSink) -> None:
        """Bind and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        self.sink = sink
        try:
            self._control = SocketFile(self._control_path, socket.SOCK_STREAM)
            if self._data_path is not None:
                self._data = SocketFile(self._data_path, socket.SOCK_DGRAM)
            loop = asyncio.get_running_loop()
            self._server = await loop.create_unix_server(
                lambda: _Connection(self), sock=self._control.socket, backlog=_BACKLOG
            )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Accept no more, end every session without reporting it, remove the sockets."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.close()
        if self._server is not None:
            # The aborted connections leave in the next turn of the loop.
            await self._server.wait_closed()
            self._server = None
            await self._all_left.wait()
        for file in (self._control, self._data):
            if file is not None:
                file.close()
        self._control = self._data = None

    def connection_arrived(self, connection: _Connection) -> None:
        """Take note of a new connection; closes the oldest silent one if there are too many."""
        self._connections.add(connection)
        self._all_left.clear()
        self._silent[connection] = None
        if len(self._silent) > MAX_SILENT:
            oldest = next(iter(self._silent))
            oldest.refuse(
                TransportError(f"one of more than {MAX_SILENT} connections that have not asked for a port")
            )

    def connection_spoke(self, connection: _Connection) -> None:
        """Take note that a connection has sent its request, or never will."""
        self._silent.pop(connection, None)

    def connection_left(self, connection: _Connection) -> None:
        """Forget a connection."""
        self.connection_spoke(connection)
        self._connections.discard(connection)
        if not self._connections:
            self._all_left.set()


class _Connection(asyncio.Protocol):
    """One control connection: a request, a reply, and then silence until it ends."""

    def __init__(self, listener: DaemonListener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport
        self._peer: Peer | None = None
        self._received = bytearray()
        self._session: Session | None = None
        self._ended = False
        self._deadline: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        with contextlib.suppress(OSError):
            self._peer = peer_of(transport.get_extra_info("socket"))
        self._deadline = asyncio.get_running_loop().call_later(HELLO_TIMEOUT, self._late)
        self._listener.connection_arrived(self)

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._received += data
        if self._session is not None:
            if len(self._received) > _PADDED_V3:
                self._end_session(self._session)
            return
        try:
            request = parse_attach_request(
                bytes(self._received[: MAX_ATTACH_REQUEST + 1]), v0=self._listener.data_socket is not None
            )
            if len(self._received) > MAX_ATTACH_REQUEST:
                raise OversizeMessage(len(self._received), MAX_ATTACH_REQUEST)
        except TruncatedMessage:
            return
        except RemoteProtocolError as error:
            self.refuse(error)
        else:
            self._attach(request)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()
        self._listener.connection_left(self)
        if self._ended:
            return
        self._ended = True
        if self._session is not None:
            self._listener.sink.session_closed(self._session)
        else:
            reason = TruncatedMessage(_PADDED_V3, len(self._received)) if self._received else _never_asked()
            self._listener.sink.session_refused(self._listener.kind, reason, self._peer)

    def refuse(self, reason: UmlabError) -> None:
        """Close the connection and report why it gets no port."""
        self.close()
        self._listener.sink.session_refused(self._listener.kind, reason, self._peer)

    def close(self) -> None:
        """End the connection without a report.  Idempotent."""
        self._ended = True
        self._listener.connection_spoke(self)
        self._deadline.cancel()
        self._transport.abort()

    def _late(self) -> None:
        self.refuse(TransportError(f"no whole request in {HELLO_TIMEOUT:g} seconds"))

    def _attach(self, request: AttachRequest) -> None:
        self._deadline.cancel()
        self._listener.connection_spoke(self)
        shared = self._listener.data_socket if request.version == 0 else None
        try:
            sock, name = _open_data_socket(request, bound=request.version != 0)
        except TransportError as error:
            self.refuse(error)
            return
        link = Link(sock.fileno(), Framing.DATAGRAM)
        if shared is not None:
            link = Link(sock.fileno(), Framing.DATAGRAM, shared.fileno(), request.path)
        session = Session(self._listener.kind, link, self._peer, f"v{request.version}", self.close)
        try:
            self._listener.sink.session_opened(session)
        except (SwitchError, StateError) as error:
            sock.close()
            self.refuse(error)
            return
        sock.detach()
        self._session = session
        if request.version != 0:
            self._transport.write(serialize_attach_reply(name))

    def _end_session(self, session: Session) -> None:
        """Close a session whose guest says more than its request, which no guest does."""
        self.close()
        self._listener.sink.session_closed(session)
        self._listener.sink.session_refused(
            self._listener.kind, RemoteProtocolError("bad request on an attached connection"), self._peer
        )


def _never_asked() -> UmlabError:
    return RemoteProtocolError("the connection ended before a request")


def _open_data_socket(request: AttachRequest, *, bound: bool) -> tuple[socket.socket, bytes]:
    """Return a socket that is connected to the guest's, and the 108-byte name it is bound to.

    Raises:
        TransportError: There is no such socket, or it takes no datagrams from us.
    """
    name = sockaddr.pad_path(b"\0umlab" + os.urandom(16)) if bound else bytes(sockaddr.PATH_SIZE)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if bound:
            sock.bind(name)
        sock.connect(sockaddr.socket_address(request.path))
    except (OSError, ValueError) as error:
        sock.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        shown = sockaddr.printable(request.path)
        raise TransportError(f"the guest's data socket {shown} cannot be reached: {reason}") from None
    return sock, name
