"""Starting a keeper."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from umlab._descriptor_limit import inherited_descriptor_limit
from umlab.errors import LabError
from umlab.keeper import process

#: Seconds for the keeper's process to have made itself independent.
_TIMEOUT = 20.0


def start_keeper(listener: socket.socket, path: str, *, lock: int, log: int) -> None:
    """Start a keeper; it serves the socket from here on, and no child of ours is left.

    Args:
        listener: A listening SOCK_SEQPACKET socket; the caller's copy may be closed afterwards.
        path: Its file, removed at the keeper's end.
        lock: A descriptor that the keeper holds as long as it lives.
        log: Where it reports errors.

    Raises:
        LabError: It cannot be started.
    """
    command = [sys.executable, "-I", "-S", process.__file__, str(listener.fileno()), path]
    command.append(str(inherited_descriptor_limit()))
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            pass_fds=(listener.fileno(), lock),
            start_new_session=True,
            timeout=_TIMEOUT,
            check=False,
            env={key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"the keeper cannot be started: {error}") from None
    if done.returncode != 0:
        raise LabError(f"the keeper ended with status {done.returncode}")
