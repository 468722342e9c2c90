"""Who is at the other end of a socket, and which boot of a guest it is."""

from __future__ import annotations

import os
import socket
import stat
import struct

from umlab.transports.contract import Peer

_CREDENTIALS = struct.Struct("=iII")
#: A guest's memory is never smaller; other deleted files of a process may be.
_MIN_MEMORY = 1 << 20


def peer_of(sock: socket.socket) -> Peer:
    """Return the process that connected a stream or seqpacket socket.

    Raises:
        OSError: The socket is not connected.
    """
    pid, uid, gid = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid, uid, gid, boot_of(pid))


def boot_of(pid: int) -> int | None:
    """Return what tells the boots of a guest apart: the inode of its memory file.

    UML keeps its memory in a file that it has deleted and holds open, on its lowest descriptor beside
    standard input and output.  A reboot executes the kernel anew in the same process, with a new file.

    Returns:
        The inode; ``None`` for other programs and where ``/proc`` does not let us look.
    """
    folder = f"/proc/{pid}/fd"
    try:
        numbers = sorted(int(name) for name in os.listdir(folder))
    except OSError:
        return None
    for number in numbers:
        try:
            if not os.readlink(f"{folder}/{number}").endswith(" (deleted)"):
                continue
            status = os.stat(f"{folder}/{number}")
        except OSError:
            continue
        if stat.S_ISREG(status.st_mode) and status.st_size >= _MIN_MEMORY:
            return status.st_ino
    return None
