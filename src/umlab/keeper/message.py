"""What daemon and keeper say to each other: one JSON object and some descriptors in each message.

The two are of one umlab and one user; what breaks this form is a bug, or an upgrade that changed it.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from umlab.errors import LocalProtocolError, RemoteProtocolError

#: Bytes of a request; a socket's buffer takes one at least.
MAX_MESSAGE = 128 * 1024
#: Bytes by which what the keeper gives back is longer than the request that it came with.
_SLACK = 64
#: Descriptors with one message, as the kernel allows.
MAX_FDS = 253
_FD_SIZE = array.array("i").itemsize

Message = dict[str, Any]


def set_up(sock: socket.socket) -> None:
    """Give a socket of either end room for whole messages."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * MAX_MESSAGE)


def send(sock: socket.socket, message: Message, fds: Sequence[int] = (), *, back: bool = False) -> None:
    """Send one message; the descriptors are duplicated on the way and stay the caller's.

    Args:
        sock: Where to.
        message: JSON-ready.
        fds: Descriptors that go with it.
        back: It gives back what came with a request, and may be that much longer.

    Raises:
        LocalProtocolError: It has more than 128 KiB, or carries more than 253 descriptors.
        OSError: The other end is gone, or does not read.
    """
    data = json.dumps(message, separators=(",", ":")).encode()
    if len(data) > MAX_MESSAGE + _SLACK * back or len(fds) > MAX_FDS:
        raise LocalProtocolError(
            f"{len(data)} bytes and {len(fds)} descriptors for the keeper, "
            f"which takes {MAX_MESSAGE} and {MAX_FDS}"
        )
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[Message, list[int]] | None:
    """Take one message and its descriptors, which are the caller's from then on.

    Returns:
        ``None`` at the end of the connection.

    Raises:
        BlockingIOError: There is none yet.
        RemoteProtocolError: It is none of ours.
        OSError: The connection is broken.
    """
    data, control, flags, _ = sock.recvmsg(
        MAX_MESSAGE + _SLACK, socket.CMSG_SPACE(MAX_FDS * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
    )
    fds: list[int] = []
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds += array.array("i", payload[: len(payload) // _FD_SIZE * _FD_SIZE])
    if not data:
        close_all(fds)
        return None
    try:
        if flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC):
            raise ValueError("cut")
        message = json.loads(data)
        if not isinstance(message, dict):
            raise ValueError("no object")
    except (ValueError, RecursionError) as error:
        close_all(fds)
        raise RemoteProtocolError(f"a message between daemon and keeper: {error}") from None
    return message, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
