"""Control connections: a guest asks for a port, is told where to send, and has the port until it leaves.

The connection is the lease: one request, one reply, and then silence until its end, which is the end of
the port.  What a request looks like and comes to is the transport's affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

from umlab.errors import (
    OversizeMessage,
    RemoteProtocolError,
    StateError,
    SwitchError,
    TransportError,
    TruncatedMessage,
    UmlabError,
)
from umlab.transports.acceptor import Acceptor
from umlab.transports.contract import Peer, Session, SessionSink
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile

#: Seconds in which a connection has to send its whole request.
HELLO_TIMEOUT = 10.0
#: Connections that may be without a request at a time; one more, and the oldest is closed.
MAX_SILENT = 128


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a request comes to.

    Attributes:
        data: The socket of ``session.link``; belongs to whoever is given this.
        session: The session, with :meth:`ControlConnection.close` as its end.
        limit: Bytes that the guest may send in all, its request included.
        reply: Called once the session has its port, returns what the guest is told for that port number;
            may raise TransportError.
    """

    data: socket.socket
    session: Session
    limit: int
    reply: Callable[[int], bytes]


#: Turns the bytes that a connection has sent so far into what they come to.  Raises TruncatedMessage for more
#: of them, and RemoteProtocolError or TransportError where the guest gets no port.
Attach = Callable[["ControlConnection", bytes], Attachment]


class ControlSocket:
    """The connections of a listening control socket, taken from it in the running event loop.

    Args:
        kind: The transport's name.
        file: The socket; stays the caller's.
        sink: Who takes the sessions.
        limit: Bytes of the longest request.
        attach: What a request comes to.
    """

    def __init__(self, kind: str, file: SocketFile, sink: SessionSink, limit: int, attach: Attach) -> None:
        self.kind = kind
        self.sink = sink
        self.limit = limit
        self.attach = attach
        self._connections: set[ControlConnection] = set()
        #: Those without a request yet, oldest first (a dict keeps its order).
        self._silent: dict[ControlConnection, None] = {}
        self._acceptor = Acceptor(file.socket, file.path, self._take)

    def close(self) -> None:
        """Accept no more, and end every session without reporting it."""
        self._acceptor.close()
        for connection in list(self._connections):
            connection.close()

    def resume(
        self, fd: int, peer: Peer | None, limit: int, make: Callable[[ControlConnection], Session]
    ) -> Session:
        """Go on with a connection that has a port.

        Args:
            fd: The connection; stays the caller's on an error.
            peer: Who it was, where that is known.
            limit: Bytes that may still come.
            make: Makes the session.
        """
        sock = socket.socket(fileno=fd)
        try:
            connection = ControlConnection(self, sock)
        except BaseException:
            sock.detach()
            raise
        self._connections.add(connection)
        return connection.resume(peer, limit, make)

    def connection_spoke(self, connection: ControlConnection) -> None:
        """Take note that a connection has sent its request."""
        self._silent.pop(connection, None)

    def connection_left(self, connection: ControlConnection) -> None:
        """Forget a connection."""
        self._silent.pop(connection, None)
        self._connections.discard(connection)

    def _take(self, sock: socket.socket) -> None:
        connection = ControlConnection(self, sock)
        self._connections.add(connection)
        self._silent[connection] = None
        connection.receive()
        if len(self._silent) > MAX_SILENT:
            oldest = next(iter(self._silent))
            # Its request may have come since the loop last looked.
            oldest.receive()
            if oldest in self._silent:
                oldest.refuse(TransportError(f"more than {MAX_SILENT} connections have not asked for a port"))


class ControlConnection:
    """One control connection: a request, a reply, and then silence until it ends.

    Attributes:
        peer: Who is at the other end.
        at_end: Called once when it is over, whoever ended it.
    """

    def __init__(self, control: ControlSocket, sock: socket.socket) -> None:
        self._control = control
        self._socket = sock
        self.peer = peer_of(sock)
        self.at_end: Callable[[], None] = _nothing
        self._received = b""
        #: Bytes that the guest may send, its request included.
        self._limit = control.limit
        #: What the end of the connection would mean now.
        self._incomplete = TruncatedMessage(4, 0)
        self._session: Session | None = None
        self._open = True
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self.receive)
        self._deadline = self._loop.call_later(HELLO_TIMEOUT, self._late)

    def fileno(self) -> int:
        """Return its descriptor."""
        return self._socket.fileno()

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
            if len(self._received) > self._limit:
                # No guest says more than its request.
                self._give_up(self._session, OversizeMessage(len(self._received), self._limit))
            return
        try:
            attachment = self._control.attach(self, self._received)
        except TruncatedMessage as error:
            self._incomplete = error
        except (RemoteProtocolError, TransportError) as error:
            self.refuse(error)
        else:
            self._open_session(attachment)

    def resume(self, peer: Peer | None, limit: int, make: Callable[[ControlConnection], Session]) -> Session:
        """Take up a session; see :class:`ControlSocket`."""
        self._deadline.cancel()
        self.peer = peer or self.peer
        self._limit = limit
        self._session = make(self)
        return self._session

    def refuse(self, reason: UmlabError) -> None:
        """Close the connection and report why it gets no port."""
        self.close()
        self._control.sink.session_refused(self._control.kind, reason, self.peer)

    def close(self) -> None:
        """End the connection without a report.  Idempotent."""
        if not self._open:
            return
        self._open = False
        self._deadline.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        self._control.connection_left(self)
        self.at_end()

    def _late(self) -> None:
        self.refuse(TransportError(f"no whole request in {HELLO_TIMEOUT:g} seconds"))

    def _open_session(self, attachment: Attachment) -> None:
        self._deadline.cancel()
        self._control.connection_spoke(self)
        self._limit = attachment.limit
        session = attachment.session
        try:
            port_no = self._control.sink.session_opened(session)
        except (SwitchError, StateError) as error:
            attachment.data.close()
            self.refuse(error)
            return
        self._session = session
        try:
            reply = attachment.reply(port_no)
        except TransportError as error:
            self._give_up(session, error)
            return
        finally:
            attachment.data.detach()
        # Where nobody reads it any more, the end of the stream is what we read next.
        with contextlib.suppress(OSError):
            self._socket.send(reply, socket.MSG_NOSIGNAL)

    def _give_up(self, session: Session, reason: UmlabError) -> None:
        """Take a port away from a guest, and report why."""
        self.close()
        self._control.sink.session_closed(session)
        self._control.sink.session_refused(self._control.kind, reason, self.peer)

    def _ended(self) -> None:
        if self._session is None:
            self.refuse(self._incomplete)
            return
        self.close()
        self._control.sink.session_closed(self._session)


def _nothing() -> None:
    """Do nothing."""
