"""The connections that a client has open, one for each call."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from umlab.client.exchange import lost
from umlab.client.place import dial
from umlab.errors import ApiTimeout, StateError


class Connections:
    """All connections of one client.

    Args:
        lab: The lab's name.

    Attributes:
        closed: Whether no more can be opened.
    """

    def __init__(self, lab: str) -> None:
        self.closed = False
        self._lab = lab
        self._sockets: set[socket.socket] = set()

    @contextmanager
    def open(self) -> Iterator[socket.socket]:
        """Hold a non-blocking connection to the daemon.

        Raises:
            StateError: The client is closed.
            LabNotRunning: There is no daemon.
            ApiTimeout: What is done with the connection takes too long.
            ConnectionLost: The daemon ends meanwhile.
        """
        if self.closed:
            raise StateError(f"the client of {self._lab} is closed")
        with dial(self._lab) as sock:
            self._sockets.add(sock)
            try:
                yield sock
            except TimeoutError:
                raise ApiTimeout(self._lab, "the daemon did not answer in time; it may be hung") from None
            except (BrokenPipeError, ConnectionResetError):
                raise lost(self._lab) from None
            finally:
                self._sockets.discard(sock)

    def close(self) -> None:
        """End everything that still runs over them.  Idempotent."""
        self.closed = True
        for sock in list(self._sockets):
            # It is closed, or its other end is.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
