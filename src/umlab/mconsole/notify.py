"""Receive what guests say without being asked: ``mconsole=notify:PATH`` on their command line."""

from __future__ import annotations

import contextlib
import os
import socket
from types import TracebackType

from umlab.errors import TransportError
from umlab.wire.mconsole import Notification, parse_notification

__all__ = ["NotifySocket"]

_RECEIVE_SIZE = 4096


class NotifySocket:
    """A datagram socket for the notifications of any number of guests.

    Guests send from sockets without a name, so a notification does not say whose it is: give each guest
    its own path where that matters.  Anyone who may write to the path can send one; treat them as rumours.

    Args:
        path: The socket to make, at most 107 bytes; only its owner may write to it.

    Raises:
        TransportError: It cannot be made, for example because the path exists.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # The mode of the bound file comes from the socket's own, so that it is never open to others.
            os.fchmod(self._socket.fileno(), 0o600)
            self._socket.bind(path)
        except OSError as error:
            self._socket.close()
            raise TransportError(f"no notifications on {path}: {error.strerror or error}") from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, readable when a notification waits (``loop.add_reader``, ``select``)."""
        return self._socket.fileno()

    def receive(self) -> Notification | None:
        """Return the next notification without waiting, ``None`` if there is none.

        Raises:
            RemoteProtocolError: The next datagram is no notification; it is taken off.
        """
        try:
            data = self._socket.recv(_RECEIVE_SIZE)
        except BlockingIOError:
            return None
        return parse_notification(data)

    def close(self) -> None:
        """Close the socket and remove its path; harmless twice."""
        if self._socket.fileno() >= 0:
            self._socket.close()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def __enter__(self) -> NotifySocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
