"""Where the daemons of a user's labs are to be reached, and which of them live."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from pathlib import Path

from umlab._name import MAX_NAME, check_name
from umlab.daemon.place import runtime_base
from umlab.errors import ApiError, ApiTimeout, LabError, LabNotRunning

#: Seconds in which a daemon has to show that it lives, for `labs`.
PROBE_TIMEOUT = 0.25
_SOCKET_NAME = "api.sock"
_PROBE = b"GET /v1/labs HTTP/1.1\r\nHost: umlab\r\nConnection: close\r\n\r\n"
_UCRED = struct.Struct("3i")


def socket_path(lab: str) -> Path:
    """Return the path of a lab's API socket, whether it is there or not.

    Raises:
        LabError: No lab can have this name.
    """
    return runtime_base() / check_name("lab", lab) / _SOCKET_NAME


def dial(lab: str) -> socket.socket:
    """Return a non-blocking socket that is connected to a lab's daemon; connecting itself never waits.

    Raises:
        LabNotRunning: Nobody listens.
        ApiTimeout: The daemon takes no more connections.
        LabError: The daemon is another user's, or the socket is not usable.
    """
    path = socket_path(lab)
    sock = socket.socket(socket.AF_UNIX)
    try:
        sock.setblocking(False)
        sock.connect(os.fspath(path))
        _check_owner(sock, path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        sock.close()
        raise LabNotRunning(lab) from None
    except BlockingIOError:
        sock.close()
        raise ApiTimeout(lab, "the daemon takes no more connections; it may be hung") from None
    except OSError as error:
        sock.close()
        raise ApiError(lab, f"cannot reach {path}: {error.strerror or error}") from None
    except BaseException:
        sock.close()
        raise
    return sock


def labs() -> list[str]:
    """Return the names of this user's labs whose daemons answer, sorted.

    All daemons are asked at the same time: one that hangs costs 0.25 seconds and is left out.
    """
    waiting: dict[int, tuple[str, socket.socket]] = {}
    found = []
    poll = select.poll()
    try:
        for name in _candidates():
            try:
                sock = dial(name)
            except LabError:
                continue
            waiting[sock.fileno()] = (name, sock)
            poll.register(sock, select.POLLIN)
            # A socket that was connected just now takes so little at once.
            sock.send(_PROBE)
        end = time.monotonic() + PROBE_TIMEOUT
        while waiting and (left := end - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000):
                name, sock = waiting.pop(fd)
                poll.unregister(fd)
                with sock:
                    if _answers(sock):
                        found.append(name)
    finally:
        for _, sock in waiting.values():
            sock.close()
    return sorted(found)


def _candidates() -> list[str]:
    try:
        names = os.listdir(runtime_base())
    except OSError:
        return []
    return [name for name in names if len(name) <= MAX_NAME]


def _answers(sock: socket.socket) -> bool:
    try:
        return sock.recv(5) == b"HTTP/"
    except OSError:
        return False


def _check_owner(sock: socket.socket, path: Path) -> None:
    """Refuse a socket that somebody else has put where ours would be."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid != os.geteuid():
        raise LabError(f"{path} is served by user {uid}; remove it or set XDG_RUNTIME_DIR")
