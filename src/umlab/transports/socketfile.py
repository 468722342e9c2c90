"""Unix sockets with a path: bound where a dead process left one, never in a living one's place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator, Mapping

from umlab.errors import SocketInUse, TransportError
from umlab.transports.contract import PRIVATE, Access
from umlab.wire.sockaddr import MAX_SOCKET_PATH

#: Connections that wait to be accepted.
_BACKLOG = 128
#: Seconds to wait for another switch to have bound its socket, which takes less than a millisecond.
_LOCK_PATIENCE = 0.5


class SocketFile:
    """A bound socket and the file that stands for it; of a kind that connects, it listens already.

    Args:
        path: Where to bind.  The kernel is given a relative path as it is, and shows it so.
        kind: ``socket.SOCK_STREAM``, ``SOCK_DGRAM`` or ``SOCK_SEQPACKET``.
        access: Whose it is and who may open it; never more, not for a moment.

    Attributes:
        path: Where it is bound, absolute: it still holds after a chdir.
        socket: The socket, non-blocking.

    Raises:
        SocketInUse: A living process serves a socket there.
        TransportError: The path is too long, something else than a socket is there, or it cannot be bound.
    """

    def __init__(self, path: str | os.PathLike[str], kind: int, access: Access = PRIVATE) -> None:
        given = os.fspath(path)
        check_socket_path(given)
        try:
            self.path = os.path.abspath(given)
            self._identity: tuple[int, int] | None = None
            self.socket = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
            try:
                with _alone_in(os.path.dirname(self.path)):
                    remove_stale(given, kind)
                    if access.mode is not None:
                        # The kernel makes the file with the socket's own permissions, less the umask.
                        os.fchmod(self.socket.fileno(), 0o600)
                    self.socket.bind(given)
                    self._identity = file_identity(given)
                    grant(given, access)
                    if kind != socket.SOCK_DGRAM:
                        self.socket.listen(_BACKLOG)
            except BaseException:
                self.close()
                raise
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise SocketInUse(given) from None
            raise TransportError(f"cannot bind the socket {given}: {error.strerror}") from None

    @classmethod
    def adopt(cls, path: str | os.PathLike[str], sock: socket.socket, *, remove: bool = True) -> SocketFile:
        """Return a socket that somebody else has bound and that listens, where it connects.

        Args:
            path: Where it is bound.
            sock: The socket; belongs to the object from now on.
            remove: Whether its file goes when the socket is closed: not where a service manager owns it.
        """
        file = cls.__new__(cls)
        file.path, file.socket = os.path.abspath(path), sock
        sock.setblocking(False)
        # Somebody may have removed it, or put another in its place since.
        file._identity = file_identity(file.path) if remove else None
        return file

    def close(self) -> None:
        """Close the socket and remove its file, unless another one has taken its place.  Idempotent."""
        if self.socket.fileno() < 0:
            return
        # While the socket is open its inode cannot belong to another file.
        remove_file(self.path, self._identity)
        self.socket.close()


def file_identity(path: str) -> tuple[int, int] | None:
    """Return what tells a file from another at the same path, ``None`` where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_file(path: str, identity: tuple[int, int] | None) -> None:
    """Remove a file, unless another one has taken its place."""
    if identity is not None and file_identity(path) == identity:
        with contextlib.suppress(OSError):
            os.unlink(path)


def grant(path: str, access: Access) -> None:
    """Give a socket or a directory of ours its group and then its permissions.

    Whoever may write to the directory that it is in could put a link to another file of ours in its
    place: what is there is looked at before, and a descriptor keeps it from being exchanged.  A directory
    that others may write to is sticky: they add and remove files of their own, and leave ours alone.

    Raises:
        OSError: The group is not one that we may give, or something else is there.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFSOCK, stat.S_IFDIR) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "another file has taken its place")
        if access.gid is not None:
            os.chown(f"/proc/self/fd/{fd}", -1, access.gid)
        if access.mode is not None:
            sticky = stat.S_ISVTX if kind == stat.S_IFDIR and access.mode & 0o022 else 0
            os.chmod(f"/proc/self/fd/{fd}", access.mode | sticky)
    finally:
        os.close(fd)


def take_socket(
    path: str, kind: int, kept: Mapping[str, int] | None, name: str, access: Access
) -> SocketFile:
    """Return the socket of a path: what an earlier process of ours has kept under a name, or a new one.

    Raises:
        SocketInUse: A living process serves a socket there.
        TransportError: It cannot be bound.
    """
    if kept is None:
        return SocketFile(path, kind, access)
    return SocketFile.adopt(path, socket.socket(fileno=kept[name]))


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


@contextlib.contextmanager
def _alone_in(folder: str) -> Iterator[None]:
    """Keep other switches from binding in a directory meanwhile.

    A socket that is bound and does not listen yet looks as dead as one whose process died, and between
    a look at a dead one and its removal another switch may have put its own there.
    """
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # No switch holds it so long: somebody is in our way who must not keep us from starting.
                if time.monotonic() >= end:
                    break
                time.sleep(0.01)
        yield
    finally:
        os.close(fd)


def remove_stale(path: str, kind: int) -> None:
    """Remove a socket that nobody serves; leave everything else alone.

    Raises:
        SocketInUse: A living process serves it.
        TransportError: It is no socket, or cannot be removed.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise TransportError(f"{path} is there already and is no socket; remove it or take another path")
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            pass
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EPROTOTYPE):
                raise SocketInUse(path) from None
            raise TransportError(f"cannot reach the socket {path}: {error.strerror}") from None
        else:
            raise SocketInUse(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except OSError as error:
        raise TransportError(f"cannot remove the dead socket {path}: {error.strerror}") from None
