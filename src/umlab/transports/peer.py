"""Who is at the other end of a socket."""

from __future__ import annotations

import socket
import struct

from umlab._boot import boot_of
from umlab.transports.contract import Peer

_CREDENTIALS = struct.Struct("=iII")


def peer_of(sock: socket.socket) -> Peer:
    """Return the process that connected a stream or seqpacket socket.

    Raises:
        OSError: The socket is not connected.
    """
    pid, uid, gid = _CREDENTIALS.unpack(
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(pid, uid, gid, boot_of(pid))
