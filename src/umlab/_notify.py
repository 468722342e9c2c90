"""What a service and the service manager that started it tell each other, in systemd's protocol.

Everything here does nothing in a process that no service manager started.

Source: sd_notify(3), sd_listen_fds(3).
"""

from __future__ import annotations

import contextlib
import os
import socket

#: The first descriptor that a service manager hands over.
_FIRST_FD = 3
#: The name of a descriptor that the service manager did not name.
UNNAMED = "unknown"


def notify(state: str) -> bool:
    """Tell the service manager about this process.

    Never waits and never raises: a service does its work whether or not somebody listens.

    Args:
        state: Assignments, one a line, such as ``READY=1`` or ``STOPPING=1``.

    Returns:
        Whether the message is on its way.  ``False`` as well where ``NOTIFY_SOCKET`` is unset.
    """
    where = os.fsencode(os.environ.get("NOTIFY_SOCKET", ""))
    if where[:1] not in (b"/", b"@"):
        return False
    address = b"\0" + where[1:] if where.startswith(b"@") else where
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            sock.sendto(state.encode("utf-8", "surrogateescape"), socket.MSG_NOSIGNAL, address)
    except OSError:
        return False
    return True


def activation_fds() -> dict[str, list[int]]:
    """Take the descriptors that the service manager opened for this process.

    They belong to the caller and are closed on exec.  The variables that announce them are removed, so
    that no child takes them for its own and a second call finds none.

    Returns:
        Descriptors by the name that the socket unit gives them (``FileDescriptorName=``, by default the
        unit's own name), in the unit's order; :data:`UNNAMED` where the names are missing.  Empty where
        the descriptors are meant for another process or the variables make no sense.
    """
    pid, count, names = (
        os.environ.pop(variable, "") for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
    )
    found: dict[str, list[int]] = {}
    if pid != str(os.getpid()) or not (count.isascii() and count.isdecimal() and len(count) < 10):
        return found
    words = names.split(":") if names else []
    if len(words) != int(count):
        words = []
    # They follow each other, so the first that is not open is the end, whatever the count claims.
    with contextlib.suppress(OSError):
        for index in range(int(count)):
            os.set_inheritable(_FIRST_FD + index, False)
            found.setdefault(words[index] if words else UNNAMED, []).append(_FIRST_FD + index)
    return found


def take_listener(fds: dict[str, list[int]], path: str) -> socket.socket | None:
    """Take the descriptor that is a unix stream socket listening at a path out of those handed over.

    Args:
        fds: What :func:`activation_fds` returned; loses the descriptor that is taken.
        path: The path that the socket has to be bound to; symbolic links such as ``/var/run`` do not count.

    Returns:
        The socket, non-blocking; ``None`` where none is bound there.
    """
    for group in fds.values():
        for fd in group:
            if _listens_at(fd, path):
                group.remove(fd)
                sock = socket.socket(fileno=fd)
                sock.setblocking(False)
                return sock
    return None


def pass_on(sock: socket.socket) -> None:
    """Hand a socket that was taken to the program that this process executes next, in the same way.

    Args:
        sock: What :func:`take_listener` returned; without a descriptor from now on.
    """
    fd = sock.detach()
    if fd != _FIRST_FD:
        # The first one was handed over as well, and nobody has taken it.
        os.dup2(fd, _FIRST_FD)
        os.close(fd)
    os.set_inheritable(_FIRST_FD, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")


def _listens_at(fd: int, path: str) -> bool:
    # The socket object is only borrowed: its descriptor stays open when the object goes.
    try:
        sock = socket.socket(fileno=fd)
    except OSError:
        return False
    try:
        return (
            sock.family == socket.AF_UNIX
            and sock.type == socket.SOCK_STREAM
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
            and os.path.realpath(os.fsdecode(sock.getsockname())) == os.path.realpath(path)
        )
    except (OSError, ValueError):
        # An abstract name has a NUL, which no path has.
        return False
    finally:
        sock.detach()
