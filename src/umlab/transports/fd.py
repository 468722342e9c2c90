"""The ``fd`` transport of UML's vector drivers: a socket pair, one end of which a guest inherits.

A guest that we start with ``vec0:transport=fd,fd=N`` has its end from its first moment on: there is no
path, nothing to connect to, and nobody who could come first.  A message is a frame, EOF is the end.  The
guest closes its end when the interface goes down, and cannot open it again.

Source: Linux arch/um/drivers/vector_user.c.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping

from umlab.switch.model import Framing, Link
from umlab.transports.contract import Argument, KeptSession, Peer, Session, SessionSink, nothing_to_close
from umlab.transports.datasocket import SEND_BUFFER


class FdListener:
    """Where the guests that a switch's own process starts are plugged in; every switch has one.

    It listens nowhere.  The engine sees the end of a pair, so ``session_closed`` is never called.
    """

    kind = "fd"
    where = ""
    arguments: tuple[Argument, ...] = ()

    def __init__(self) -> None:
        self._sink: SessionSink

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Begin to take ends; see :class:`umlab.transports.contract.Listener`."""
        self._sink = sink

    async def close(self) -> None:
        """Do nothing: the ends belong to the engine."""

    def descriptors(self) -> dict[str, int]:
        """Return nothing: the ports are all there is."""
        return {}

    def resume(self, kept: KeptSession) -> Session:
        """Go on with our end; the guest's end, if it went meanwhile, is the engine's to see."""
        (fd,) = kept.fds
        return self._session(fd, kept.peer, kept.detail)

    def plug(self, end: socket.socket, peer: Peer, detail: str) -> int:
        """Give our end of a pair a port and return its number.

        Args:
            end: Belongs to the switch from then on, on an error to the caller.
            peer: The guest that has the other end.
            detail: As in :class:`umlab.transports.contract.Session`.

        Raises:
            SwitchError: It gets none.
            StateError: The same, because the switch does not run.
        """
        port_no = self._sink.session_opened(self._session(end.fileno(), peer, detail))
        end.detach()
        return port_no

    def _session(self, fd: int, peer: Peer | None, detail: str) -> Session:
        return Session(self.kind, Link(fd, Framing.SEQPACKET), peer, detail, nothing_to_close)


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """Return a switch's end and a guest's; neither waits, and a guest's kernel would.

    Raises:
        OSError: There is no descriptor left.
    """
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    return ends
