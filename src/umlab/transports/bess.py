"""The ``bess`` transport of UML's vector drivers: a SOCK_SEQPACKET listener.

A guest with ``vec0:transport=bess,dst=PATH`` connects when its interface comes up.  There is no
handshake: a connection is a session, a message is a frame, EOF is the end.

Source: Linux arch/um/drivers/vector_user.c.
"""

from __future__ import annotations

import os
import socket

from umlab.errors import StateError, SwitchError
from umlab.switch.model import Framing, Link
from umlab.transports.acceptor import Acceptor
from umlab.transports.contract import Session, SessionSink
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile


class BessListener:
    """A path to which any number of guests connect, each connection a port.

    The engine sees the end of a connection, so ``session_closed`` is never called.

    Args:
        path: The socket's path, at most 107 bytes.
    """

    kind = "bess"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.where = os.fspath(path)
        # A guest's directory is another one.
        self.guest_argument = f"vec0:transport=bess,dst={os.path.abspath(self.where)}"
        self._file: SocketFile | None = None
        self._acceptor: Acceptor
        self._sink: SessionSink

    async def start(self, sink: SessionSink) -> None:
        """Bind and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        self._file = SocketFile(self.where, socket.SOCK_SEQPACKET)
        self._acceptor = Acceptor(self._file.socket, self.where, self._open)

    async def close(self) -> None:
        """Accept no more and remove the socket; the connections belong to the engine."""
        if self._file is not None:
            self._acceptor.close()
            self._file.close()
            self._file = None

    def _open(self, sock: socket.socket) -> None:
        peer = peer_of(sock)
        session = Session(self.kind, Link(sock.fileno(), Framing.SEQPACKET), peer, "", _nothing_to_close)
        try:
            self._sink.session_opened(session)
        except (SwitchError, StateError) as error:
            sock.close()
            self._sink.session_refused(self.kind, error, peer)
            return
        sock.detach()


def _nothing_to_close() -> None:
    """A connection has no control stream beside its descriptor, which the engine closes."""
