"""Who connected a unix socket, as the kernel saw it at that moment.

Source: unix(7), SO_PEERCRED; Linux net/core/sock.c, SO_PEERGROUPS.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

#: What Python's socket module has no name for.
_SO_PEERGROUPS = 59
_CREDENTIALS = struct.Struct("=iII")
#: Bytes that Python asks for at most: 256 groups.
_MOST = 1024


class PeerCredentials(NamedTuple):
    """The process at the other end.

    Attributes:
        pid: In our PID namespace; 0 where it is not visible.
        uid: Its effective user.
        gid: Its effective group.
    """

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: socket.socket) -> PeerCredentials:
    """Return who connected a stream or seqpacket socket.

    Raises:
        OSError: The socket is not connected.
    """
    return PeerCredentials(
        *_CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    )


def peer_groups(sock: socket.socket) -> tuple[int, ...]:
    """Return the supplementary groups of who connected a socket; none of more than 256.

    Raises:
        OSError: The socket is not connected.
    """
    try:
        packed = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST)
    except OSError as error:
        # Too many, or a kernel before 4.13, which does not tell.
        if error.errno in (errno.ERANGE, errno.ENOPROTOOPT):
            return ()
        raise
    return struct.unpack(f"={len(packed) // 4}I", packed)
