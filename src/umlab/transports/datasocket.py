"""Our socket for the frames of one guest: connected to the guest's, so that nobody else sends to it."""

from __future__ import annotations

import errno
import os
import socket

from umlab._descriptor_limit import descriptor_limit_hint
from umlab.errors import TransportError
from umlab.wire import sockaddr

#: Bytes of frames on their way to a guest; the kernel may give less.
SEND_BUFFER = 1 << 20


def open_data_socket(path: bytes, uid: int, name: bytes | None = None) -> socket.socket:
    """Return a socket that is connected to a guest's.

    Args:
        path: The 108-byte path field that names the guest's socket.
        uid: The guest's user, whose the socket must be where it is a file; root's may be ours as well.
        name: What ours is bound to afterwards, if anything: all 108 bytes of an abstract name.

    Raises:
        TransportError: There is no such socket, it takes no datagrams from us, or it is not the user's.
    """
    sock: socket.socket | None = None
    try:
        address = sockaddr.socket_address(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        # Connected first: from its first instant under a name it takes frames of this guest only.
        if address[0] == 0:
            sock.connect(address)
        else:
            _connect_to_file(sock, address, uid)
        if name is not None:
            sock.bind(name)
    except (OSError, ValueError) as error:
        if sock is not None:
            sock.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            reason = f"{reason} ({descriptor_limit_hint()})"
        shown = sockaddr.printable(path)
        raise TransportError(f"the guest's data socket {shown} cannot be reached: {reason}") from None
    return sock


def check_connected(fd: int) -> None:
    """See that a data socket is still connected to a guest's.

    Raises:
        OSError: It is not: the guest's is gone, and anybody who knows its name may send to it.
    """
    sock = socket.socket(fileno=fd)
    try:
        sock.getpeername()
    finally:
        sock.detach()


def _connect_to_file(sock: socket.socket, path: bytes, uid: int) -> None:
    """Connect to a socket file that belongs to a user, or for root to ourselves.

    A switch may be allowed to write to sockets that its guests are not, such as those of the system's
    services; it must not carry frames there for them.  The descriptor keeps the file from being
    exchanged after the look at its owner.

    Raises:
        OSError: There is no such socket, or it cannot be connected to.
        ValueError: It belongs to somebody else.
    """
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        owners = {uid, os.geteuid()} if uid == 0 else {uid}
        if os.fstat(fd).st_uid not in owners:
            raise ValueError("it belongs to another user")
        sock.connect(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
