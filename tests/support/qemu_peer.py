"""A peer of QEMU's transports that is none: sockets on which frames lie as QEMU's do."""

from __future__ import annotations

import socket
import struct
from contextlib import ExitStack

from support.deadline import scaled

Address = str | tuple[str, int]
LOOPBACK = socket.inet_aton("127.0.0.1")


class QemuPeer:
    """A socket that is closed with a test, and how frames lie in it.

    Args:
        stack: Closes it.
        kind: What kind it is.
        bind: Where it is bound, if it is.
        to: Where it sends to; a stream is connected there.
    """

    def __init__(self, stack: ExitStack, kind: int, bind: Address | None, to: Address) -> None:
        family = socket.AF_UNIX if isinstance(to, str) else socket.AF_INET
        self.sock = stack.enter_context(socket.socket(family, kind))
        self.sock.settimeout(scaled(10))
        self._to = to
        self._is_stream = kind == socket.SOCK_STREAM
        if bind is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.sock.bind(bind)
        if self._is_stream:
            self.sock.connect(to)

    def join(self, group: str) -> None:
        """Be in a multicast group, on the loopback device; it then hears what it sends itself as well."""
        membership = socket.inet_aton(group) + LOOPBACK
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        self.sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, LOOPBACK)

    def send(self, data: bytes) -> None:
        """Send a frame."""
        if self._is_stream:
            self.sock.sendall(struct.pack("!I", len(data)) + data)
        else:
            self.sock.sendto(data, self._to)

    def receive(self) -> bytes:
        """Return the next frame."""
        if not self._is_stream:
            return self.sock.recv(10_000)
        (length,) = struct.unpack("!I", self.sock.recv(4, socket.MSG_WAITALL))
        return self.sock.recv(length, socket.MSG_WAITALL)


def free_address(kind: int) -> tuple[str, int]:
    """Return an address of this host that nobody has."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return "127.0.0.1", int(sock.getsockname()[1])
