"""The ``bess`` transport of UML's vector drivers: a SOCK_SEQPACKET listener.

A guest with ``vec0:transport=bess,dst=PATH`` connects when its interface comes up.  There is no
handshake: a connection is a session, a message is a frame, EOF is the end.

Source: Linux arch/um/drivers/vector_user.c.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket

from umlab.errors import StateError, SwitchError
from umlab.switch.model import Framing, Link
from umlab.transports.contract import Session, SessionSink
from umlab.transports.peer import peer_of
from umlab.transports.socketfile import SocketFile

_log = logging.getLogger(__name__)

_BACKLOG = 128
#: Seconds without accepting when there is no descriptor left.
_EXHAUSTED_PAUSE = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class BessListener:
    """A path to which any number of guests connect, each connection a port.

    The engine sees the end of a connection, so ``session_closed`` is never called.

    Args:
        path: The socket's path, at most 107 bytes.
    """

    kind = "bess"

    def __init__(self, path: str) -> None:
        self.where = path
        self._file: SocketFile | None = None
        self._sink: SessionSink
        self._pause: asyncio.TimerHandle | None = None

    async def start(self, sink: SessionSink) -> None:
        """Bind and begin to accept; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink
        self._file = SocketFile(self.where, socket.SOCK_SEQPACKET)
        self._file.socket.listen(_BACKLOG)
        self._accept_on()

    async def close(self) -> None:
        """Accept no more and remove the socket; the connections belong to the engine."""
        if self._file is None:
            return
        if self._pause is not None:
            self._pause.cancel()
        asyncio.get_running_loop().remove_reader(self._file.socket)
        self._file.close()
        self._file = None

    def _accept_on(self) -> None:
        self._pause = None
        if self._file is not None:
            asyncio.get_running_loop().add_reader(self._file.socket, self._accept, self._file.socket)

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            _log.warning("%s: cannot accept: %s; again in %g s", self.where, error.strerror, _EXHAUSTED_PAUSE)
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._pause = loop.call_later(_EXHAUSTED_PAUSE, self._accept_on)
            return
        self._open(sock)

    def _open(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        peer = peer_of(sock)
        link = Link(sock.fileno(), Framing.SEQPACKET)
        session = Session(self.kind, link, peer, "", _nothing_to_close)
        try:
            self._sink.session_opened(session)
        except (SwitchError, StateError) as error:
            sock.close()
            self._sink.session_refused(self.kind, error, peer)
            return
        sock.detach()


def _nothing_to_close() -> None:
    """A connection has no control stream beside its descriptor, which the engine closes."""
