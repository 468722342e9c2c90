"""Unix sockets with a path: bound where a dead process left one, never in a living one's place."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from umlab.errors import SocketInUse, TransportError

#: Bytes of a path that fit with the NUL behind them.
MAX_SOCKET_PATH = 107


class SocketFile:
    """A bound socket and the file that stands for it.

    Args:
        path: Where to bind; relative paths are kept as they are.
        kind: ``socket.SOCK_STREAM``, ``SOCK_DGRAM`` or ``SOCK_SEQPACKET``.

    Attributes:
        path: Where it is bound.
        socket: The socket, non-blocking.

    Raises:
        SocketInUse: A living process serves a socket there.
        TransportError: The path is too long, something else than a socket is there, or it cannot be bound.
    """

    def __init__(self, path: str, kind: int) -> None:
        check_socket_path(path)
        _remove_stale(path, kind)
        self.path = os.path.abspath(path)
        self.socket = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
        try:
            self.socket.bind(path)
            status = os.stat(path)
        except OSError as error:
            self.socket.close()
            if error.errno == errno.EADDRINUSE:
                raise SocketInUse(path) from None
            raise TransportError(f"cannot bind the socket {path}: {error.strerror}") from None
        self._identity = (status.st_dev, status.st_ino)

    def close(self) -> None:
        """Close the socket and remove its file, unless another one has taken its place.  Idempotent."""
        if self.socket.fileno() < 0:
            return
        with contextlib.suppress(OSError):
            status = os.lstat(self.path)
            if (status.st_dev, status.st_ino) == self._identity:
                os.unlink(self.path)
        self.socket.close()


def check_socket_path(path: str) -> None:
    """Refuse a path that no socket address holds.

    Raises:
        TransportError: It is empty, has a NUL or more than 107 bytes.
    """
    size = len(os.fsencode(path))
    if not path or "\0" in path:
        raise TransportError(f"{path!r} is not the path of a socket")
    if size > MAX_SOCKET_PATH:
        raise TransportError(
            f"the socket path {path} has {size} bytes, at most {MAX_SOCKET_PATH} fit; take a shorter one"
        )


def _remove_stale(path: str, kind: int) -> None:
    """Remove a socket that nobody serves; leave everything else alone."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise TransportError(f"cannot look at {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(status.st_mode):
        raise TransportError(f"{path} is there already and is no socket; remove it or take another path")
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            pass
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EPROTOTYPE):
                raise SocketInUse(path) from None
            raise TransportError(f"cannot reach the socket {path}: {error.strerror}") from None
        else:
            raise SocketInUse(path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise TransportError(f"cannot remove the dead socket {path}: {error.strerror}") from None
