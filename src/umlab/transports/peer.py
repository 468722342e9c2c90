"""Who is at the other end of a socket, and which boot of a guest it is."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import stat
import struct

from umlab.transports.contract import Peer

_CREDENTIALS = struct.Struct("=iII")
#: A guest's memory is never smaller; other deleted files of a process may be.
_MIN_MEMORY = 1 << 20
#: Descriptors that are looked at: another program may have very many.
_MAX_DESCRIPTORS = 256


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
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        # Listed in ascending order.
        for entry in itertools.islice(descriptors, _MAX_DESCRIPTORS):
            if (inode := _memory_inode(entry.path)) is not None:
                return inode
    return None


def _memory_inode(link: str) -> int | None:
    # The process lives on meanwhile and may have closed this one.
    with contextlib.suppress(OSError):
        if os.readlink(link).endswith(" (deleted)"):
            status = os.stat(link)
            if stat.S_ISREG(status.st_mode) and status.st_size >= _MIN_MEMORY:
                return status.st_ino
    return None
