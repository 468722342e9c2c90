"""Who is at the other end of a socket."""

from __future__ import annotations

import socket

from umlab._boot import boot_of
from umlab._peer_credentials import peer_credentials, peer_groups
from umlab.transports.contract import Peer


def peer_of(sock: socket.socket) -> Peer:
    """Return the process that connected a stream or seqpacket socket.

    Raises:
        OSError: The socket is not connected.
    """
    pid, uid, gid = peer_credentials(sock)
    return Peer(pid, uid, gid, boot_of(pid), peer_groups(sock))
