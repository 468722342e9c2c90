"""The ``bess`` transport of UML's vector drivers: a SOCK_SEQPACKET listener.

A guest with ``vec0:transport=bess,dst=PATH`` connects when its interface comes up.  There is no
handshake: a connection is a session, a message is a frame, EOF is the end.

Source: Linux arch/um/drivers/vector_user.c.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

from umlab.errors import StateError, SwitchError
from umlab.switch.model import Framing, Link
from umlab.transports.acceptor import Acceptor
from umlab.transports.contract import (
    PRIVATE,
    Access,
    Argument,
    KeptSession,
    Peer,
    Session,
    SessionSink,
    Transport,
    nothing_to_close,
)
from umlab.transports.datasocket import SEND_BUFFER
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile, take_socket


class BessListener:
    """A path to which any number of guests connect, each connection a port.

    The engine sees the end of a connection, so ``session_closed`` is never called.

    Args:
        path: The socket's path, at most 107 bytes.
        access: Who may attach.
    """

    kind = "bess"

    def __init__(self, path: str | os.PathLike[str], access: Access = PRIVATE) -> None:
        self.where = os.fspath(path)
        self._access = access
        # A guest's directory is another one.
        guest = f"vec0:transport=bess,dst={os.path.abspath(self.where)}"
        self.arguments = (Argument("uml", guest, "bess"),)
        self._file: SocketFile | None = None
        self._acceptor: Acceptor
        self._sink: SessionSink

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Bind and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        self._file = take_socket(self.where, socket.SOCK_SEQPACKET, kept, "listener", self._access)
        self._acceptor = Acceptor(self._file.socket, self.where, self._open)

    async def close(self) -> None:
        """Accept no more and remove the socket; the connections belong to the engine."""
        if self._file is not None:
            self._acceptor.close()
            self._file.close()
            self._file = None

    def descriptors(self) -> dict[str, int]:
        """Return the listening socket."""
        return {} if self._file is None else {"listener": self._file.socket.fileno()}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with a connection; its end, if it came meanwhile, is the engine's to see."""
        (fd,) = kept.fds
        return self._session(fd, kept.peer)

    def _session(self, fd: int, peer: Peer | None) -> Session:
        return Session(self.kind, Link(fd, Framing.SEQPACKET), peer, "", nothing_to_close)

    def _open(self, sock: socket.socket) -> None:
        peer = peer_of(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        session = self._session(sock.fileno(), peer)
        try:
            self._sink.session_opened(session)
        except (SwitchError, StateError) as error:
            sock.close()
            self._sink.session_refused(self.kind, error, peer)
            return
        sock.detach()


TRANSPORT = Transport(
    "bess",
    "bess:PATH",
    BessListener,
    resolve=lambda place, absolute: absolute(place),
    default="{}.bess",
)
