"""Open a socket that is connected to a guest's console.

The raw ``_socket`` module stands in for ``socket``, whose enums double the start-up time of the
smallest program.
"""

from __future__ import annotations

import _socket
import errno
import os
import stat

from umlab.errors import MconsoleProtocolError, MconsoleUnreachable, RemoteProtocolError
from umlab.wire.sockaddr import MAX_SOCKET_PATH

__all__ = ["CHECK_INTERVAL", "RECEIVE_SIZE", "check_listening", "garbled", "open_console", "unreachable"]

RECEIVE_SIZE = 4096
"""Bytes to read at once: a reply has at most 524, so more than that shows as oversize."""

CHECK_INTERVAL = 1.0
"""Seconds of waiting after which a client makes sure that the guest still listens."""

RECEIVE_BUFFER = 4 * 1024 * 1024
"""Bytes asked for (the kernel grants up to ``net.core.rmem_max``)."""

#: What a socket says whose guest has ended.
_GONE = (errno.ECONNREFUSED, errno.ENOENT)


def open_console(path: str, umid: str, command: str) -> _socket.socket:
    """Return a new datagram socket, bound to an automatic name and connected to a guest's console.

    It must be bound, or the guest could not answer; it must be connected, because then the limit of
    eleven unread datagrams does not apply and a long answer loses nothing.  A socket serves one request.

    Args:
        path: The console's socket.
        umid: The guest's name, for errors.
        command: The command, for errors.

    Raises:
        MconsoleUnreachable: Nobody listens there.

    Source: Linux net/unix/af_unix.c ``unix_dgram_sendmsg``.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise MconsoleUnreachable(
            umid, command, f"cannot be reached: a socket's path has at most {MAX_SOCKET_PATH} bytes: {path}"
        )
    try:
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    except OSError as error:
        raise unreachable(path, umid, command, error) from error
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.bind("")
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise unreachable(path, umid, command, error) from error
    except BaseException:
        sock.close()
        raise
    return sock


def check_listening(path: str, umid: str, command: str, received: bytes | None = None) -> None:
    """Return if a guest still listens: a datagram socket does not tell that the other side is gone.

    Args:
        path: The console's socket.
        umid: The guest's name, for errors.
        command: The command, for errors.
        received: What has come of the answer; ``None`` where the command was not sent.

    Raises:
        MconsoleUnreachable: Nobody listens there.
    """
    try:
        open_console(path, umid, command).close()
    except MconsoleUnreachable as error:
        if received is not None and isinstance(error.__cause__, OSError) and error.__cause__.errno in _GONE:
            error.said = received.decode("utf-8", "backslashreplace")
        raise


def unreachable(path: str, umid: str, command: str, error: OSError) -> MconsoleUnreachable:
    """Return the error that explains why a console's socket cannot be used.

    Args:
        path: The console's socket.
        umid: The guest's name.
        command: The command.
        error: What a call on the socket raised.
    """
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        reason = f"does not run: nothing at {path}"
    elif error.errno in (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN):
        if _is_socket(path):
            reason = f"does not run: nobody listens on {path}, which a dead guest left behind"
        else:
            reason = f"cannot be reached: {path} is not a socket"
    elif error.errno == errno.EPROTOTYPE:
        reason = f"cannot be reached: {path} is a socket, but not that of a console"
    elif error.errno == errno.EMFILE:
        # Nothing can be imported any more.
        limit = os.sysconf("SC_OPEN_MAX")
        reason = f"cannot be asked: {error.strerror} (the limit is {limit}; raise it: ulimit -n)"
    else:
        reason = f"cannot be reached: {path}: {error.strerror or error}"
    return MconsoleUnreachable(umid, command, reason)


def garbled(umid: str, command: str, received: bytes, error: RemoteProtocolError) -> MconsoleProtocolError:
    """Return the error that says whose answer it is that breaks the protocol.

    Args:
        umid: The guest's name.
        command: The command.
        received: What came of the answer before.
        error: What the session raised.
    """
    return MconsoleProtocolError(umid, command, received.decode("utf-8", "backslashreplace"), str(error))


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        # It went away after the call that failed: a guest that ended just now.
        return True
