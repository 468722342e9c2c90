"""What both engines look at before they serve a descriptor."""

from __future__ import annotations

import os
import socket

from umlab.errors import SwitchError
from umlab.switch.model import Framing, Link

#: Bytes of the path field of a unix socket address.
PATH_SIZE = 108
_SOCKET_TYPES = {Framing.DATAGRAM: socket.SOCK_DGRAM, Framing.SEQPACKET: socket.SOCK_SEQPACKET}


def open_socket(link: Link) -> socket.socket | None:
    """Return the socket of a link's descriptor, None for a device; the descriptor stays the caller's.

    Raises:
        SwitchError: The descriptor is not what the link says, or its device would block.
    """
    try:
        if link.framing is Framing.DEVICE:
            if os.get_blocking(link.fd):
                raise SwitchError(f"device descriptor {link.fd} must not block")
            return None
        sock = socket.socket(fileno=link.fd)
    except OSError as error:
        raise SwitchError(f"descriptor {link.fd} cannot be served: {error}") from error
    if sock.type != _SOCKET_TYPES[link.framing]:
        sock.detach()
        raise SwitchError(f"descriptor {link.fd} is not a {link.framing.value} socket")
    return sock


def address_key(rx_address: bytes) -> bytes:
    """Return what the kernel tells of a sender with this path field, padded with NULs to 108 bytes.

    A path ends at its first NUL, whatever follows it; an abstract name is all 108 bytes.
    """
    if rx_address[:1] == b"\0":
        return rx_address
    return rx_address.partition(b"\0")[0].ljust(PATH_SIZE, b"\0")
