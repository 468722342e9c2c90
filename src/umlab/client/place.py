"""Where the daemons of a user's labs are to be reached."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from umlab._name import check_name
from umlab._peer_credentials import peer_credentials
from umlab.daemon.place import API_SOCKET, runtime_base
from umlab.errors import ApiError, ApiTimeout, LabError, LabNotRunning


def socket_path(lab: str) -> Path:
    """Return the path of a lab's API socket, whether it is there or not.

    Raises:
        LabError: No lab can have this name.
    """
    return runtime_base() / check_name("lab", lab) / API_SOCKET


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


def _check_owner(sock: socket.socket, path: Path) -> None:
    """Refuse a socket that somebody else has put where ours would be."""
    uid = peer_credentials(sock).uid
    if uid != os.geteuid():
        raise LabError(f"{path} is served by user {uid}; remove it or set XDG_RUNTIME_DIR")
