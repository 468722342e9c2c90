"""Emptying a socket that was connected just now: what waits there may be anybody's."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

#: More datagrams than wait in a socket, of one that is still being sent to.
_MOST = 4096
#: Bytes of a datagram that nobody reads.
_ANY = 1


def drain(sock: socket.socket) -> list[Any]:
    """Drop what waits in a non-blocking socket of datagrams, and return who sent it."""
    senders = []
    with contextlib.suppress(OSError):
        for _ in range(_MOST):
            senders.append(sock.recvfrom(_ANY)[1])
    return senders
