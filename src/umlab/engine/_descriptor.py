"""What both engines look at before they serve a descriptor."""

from __future__ import annotations

import os
import socket

from umlab.errors import SwitchError
from umlab.switch.model import Framing, Link

#: Bytes of the path field of a unix socket address.
PATH_SIZE = 108
_SOCKET_TYPES = {
    Framing.DATAGRAM: (socket.SOCK_DGRAM, socket.SOCK_RAW),
    Framing.SEQPACKET: (socket.SOCK_SEQPACKET,),
    Framing.STREAM: (socket.SOCK_STREAM,),
    Framing.PACKET: (socket.SOCK_RAW,),
}


def open_socket(link: Link) -> socket.socket | None:
    """Return the socket of a link's descriptor, None for a device; the descriptor stays the caller's.

    Raises:
        SwitchError: The descriptor is not what the link says, or its device would block.
    """
    if link.encapsulation is not None and link.framing is not Framing.DATAGRAM:
        raise SwitchError(f"a {link.framing.value} link has no header in front of its frames")
    if link.rx_shared_fd is not None and (link.encapsulation is not None or link.monitor):
        raise SwitchError("neither a monitor nor a link with headers has a shared receiver")
    try:
        if link.framing is Framing.DEVICE:
            if os.get_blocking(link.fd):
                raise SwitchError(f"device descriptor {link.fd} must not block")
            return None
        sock = socket.socket(fileno=link.fd)
    except OSError as error:
        raise SwitchError(f"descriptor {link.fd} cannot be served: {error}") from error
    is_packet = sock.family == socket.AF_PACKET
    if sock.type not in _SOCKET_TYPES[link.framing] or is_packet != (link.framing is Framing.PACKET):
        sock.detach()
        raise SwitchError(f"descriptor {link.fd} is not a {link.framing.value} socket")
    return sock


def is_unix_datagram(framing: Framing, sock: socket.socket | None) -> bool:
    """Tell whether the kernel undoes the socket's connection when the peer is gone, unlike UDP's."""
    return framing is Framing.DATAGRAM and sock is not None and sock.family == socket.AF_UNIX


def check_receiver(fd: int) -> None:
    """See that a descriptor on which several ports are to receive is a datagram socket.

    Raises:
        OSError: It is no socket.
        SwitchError: It is one of another kind.
    """
    sock = socket.socket(fileno=fd)
    kind = sock.type
    sock.detach()
    if kind != socket.SOCK_DGRAM:
        raise SwitchError(f"shared descriptor {fd} is not a datagram socket")


def address_key(rx_address: bytes) -> bytes:
    """Return what the kernel tells of a sender with this path field, padded with NULs to 108 bytes.

    A path ends at its first NUL, whatever follows it; an abstract name is all 108 bytes.  Nothing is the
    key of who has all that comes.

    Raises:
        SwitchError: No sender has it.
    """
    if not rx_address:
        return b""
    path = rx_address.partition(b"\0")[0]
    key = path.ljust(PATH_SIZE, b"\0") if path else rx_address
    if len(key) != PATH_SIZE:
        raise SwitchError(f"an address has {PATH_SIZE} bytes, not {len(rx_address)}")
    return key
