"""What the Python engine holds for each descriptor that it serves, and how it reads and writes it."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque

from umlab.engine._descriptor import PATH_SIZE, check_receiver, is_unix_datagram
from umlab.engine._pyframing import BURST, wire_of
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.model import Framing, Link

_WITH_AN_END = frozenset({Framing.SEQPACKET, Framing.DEVICE, Framing.STREAM})
_PEER_GONE = frozenset({errno.ECONNREFUSED, errno.ENOTCONN, errno.EPIPE, errno.ENOENT, errno.ECONNRESET})


class Port:
    """One attached descriptor; owned by the engine, guarded by its lock.

    Attributes:
        fd: The descriptor.
        framing: How frames lie in it.
        wire: Reads and writes it.
        monitor: It is sent every frame and never read from.
        port_no: Its number, set once it has one; so is ``counters``.
        counters: The core's own counters of the port.
        queue: Frames that wait until the descriptor is writable.
        is_unix_datagram: Its kernel undoes the connection when the peer is gone, unlike UDP's.
        mask: What epoll watches it for, EPOLLOUT left aside.
        closed: It came to its end and is out of the epoll set; the port itself stays.
        errno: The error that a read met before the end, 0 if none.
        shared: Where the port's frames are received when not on ``fd``, under ``rx_address``.
    """

    __slots__ = (
        "_read_errors",
        "_socket",
        "closed",
        "counters",
        "errno",
        "fd",
        "framing",
        "is_unix_datagram",
        "mask",
        "monitor",
        "port_no",
        "queue",
        "rx_address",
        "shared",
        "wire",
    )

    def __init__(self, link: Link, sock: socket.socket | None) -> None:
        self.fd = link.fd
        self.framing = link.framing
        self.monitor = link.monitor
        self._socket = sock
        self.is_unix_datagram = is_unix_datagram(link.framing, sock)
        self.wire = wire_of(link, sock)
        self.port_no = 0
        self.counters = PortCounters()
        self.queue: deque[bytes] = deque()
        self.mask = 0
        self.closed = False
        self.errno = 0
        self._read_errors = 0
        self.shared: SharedReceiver | None = None
        self.rx_address = b""

    @property
    def has_end(self) -> bool:
        """Whether nothing is what is read at the end."""
        return self.framing in _WITH_AN_END

    @property
    def is_down(self) -> bool:
        """Whether the guest's end is known to be gone: nothing is read here any more."""
        return self.closed or not (self.mask or self.shared is not None or self.monitor)

    def survives(self, error: OSError) -> bool:
        """Tell whether a failed read leaves the descriptor usable; reading has cleared the error.

        A connected datagram socket reports there what became of an earlier send.  A SOCK_SEQPACKET
        socket reports once that its peer went without reading all, before what the peer still sent.
        A burst of nothing but errors is no such thing.  An interface that is down says so at each read.
        """
        if self.framing in (Framing.DATAGRAM, Framing.PACKET):
            self._read_errors += 1
            return self._read_errors < BURST
        if self.framing is Framing.SEQPACKET and error.errno == errno.ECONNRESET and not self.errno:
            self.errno = error.errno
            return True
        return False

    def read_worked(self) -> None:
        """Forget the read errors that came before."""
        self._read_errors = 0

    def take_error(self) -> int:
        """Clear the descriptor's pending error and return its number, 0 if there was none."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if self._socket else 0

    def release(self) -> None:
        """Give the descriptor back to whoever attached it."""
        if self._socket is not None:
            self._socket.detach()

    def close(self) -> None:
        """Close the descriptor."""
        if self._socket is not None:
            self._socket.close()
        else:
            os.close(self.fd)


class SharedReceiver:
    """A datagram socket on which several ports receive, told apart by the sender's address.

    It is a duplicate of the transport's descriptor, so that ours can be closed at any time.

    Attributes:
        key: The transport's descriptor.
        fd: Ours.
        read_size: Bytes of a frame that are read at most.
        ports: By sender, as ``address_key`` writes it; nothing for who has all that comes.
        closed: It is out of the epoll set.
    """

    __slots__ = ("_socket", "closed", "fd", "key", "ports", "read_size")

    def __init__(self, shared_fd: int, read_size: int) -> None:
        check_receiver(shared_fd)
        self.key = shared_fd
        fd = os.dup(shared_fd)
        try:
            self._socket = socket.socket(fileno=fd)
        except OSError:
            os.close(fd)
            raise
        self.read_size = read_size
        self.fd = self._socket.fileno()
        self.ports: dict[bytes, Port] = {}
        self.closed = False

    def read(self) -> tuple[bytes, bytes]:
        """Return the next frame and its sender's address; raises OSError."""
        frame, address = self._socket.recvfrom(self.read_size, socket.MSG_DONTWAIT)
        # Python gives a path as text, an abstract name as bytes and an unbound sender as neither.
        if isinstance(address, str):
            address = os.fsencode(address).ljust(PATH_SIZE, b"\0")
        return frame, address if isinstance(address, bytes) else b""

    def port_of(self, address: bytes) -> Port | None:
        """Return who receives what this sender sends."""
        return self.ports.get(address) or self.ports.get(b"")

    def close(self) -> None:
        """Close our duplicate."""
        self._socket.close()


def drop_reason(error: OSError) -> DropReason:
    """Return what it means that a descriptor did not take a frame."""
    if error.errno in _PEER_GONE:
        return DropReason.PEER_GONE
    return DropReason.TAIL if error.errno == errno.ENOBUFS else DropReason.REFUSED
