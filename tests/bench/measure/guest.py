"""A guest's end of daemon protocol v3, in Python."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import time
from pathlib import Path

REQUEST = struct.Struct("=IIiH108s2x")
REPLY = struct.Struct("=H108s")

_serials = itertools.count()


def new_name() -> bytes:
    """Return a name for a guest's socket, all 108 bytes as the UML kernel binds it: a shorter one differs."""
    return f"\0bench-{os.getpid()}-{time.monotonic_ns()}-{next(_serials)}".encode().ljust(108, b"\0")


class Guest:
    """A client of a switch; ``sock`` carries its frames.

    Args:
        control: The switch's control socket.
        number: The last byte of its address.
        connected: Whether its socket takes frames from the switch only, as libvdeplug's does.  The UML
            kernel's takes them from anybody, and holds 11 for that reason.
        timeout: In seconds, for everything it waits for.

    Attributes:
        tag: What its frames have behind their addresses.

    Raises:
        OSError: The switch does not answer as it should, or not in time.
    """

    def __init__(self, control: Path, number: int, connected: bool = True, timeout: float = 20) -> None:
        name = new_name()
        self.tag = b""
        self.mac = b"\x02\0\0\0\0" + bytes([number])
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.bind(name)
            for each in (self.sock, self.control):
                each.settimeout(timeout)
            self.control.connect(os.fspath(control))
            self.control.sendall(REQUEST.pack(0xFEEDFACE, 3, 0, socket.AF_UNIX, name))
            reply = self.control.recv(REPLY.size, socket.MSG_WAITALL)
            if len(reply) < REPLY.size:
                raise ConnectionError("the switch refused the guest")
            _, path = REPLY.unpack(reply)
            self._switch = path if path[0] == 0 else path.partition(b"\0")[0]
            if connected:
                self.sock.connect(self._switch)
        except OSError:
            self.close()
            raise

    def greet(self, others: list[Guest]) -> None:
        """Send a broadcast and wait until it has come to all the others, which are attached then."""
        frame = (b"\xff" * 6 + self.mac + self.tag + b"\x88\xb5").ljust(60, b"\0")
        self.sock.sendto(frame, self._switch)
        for other in others:
            other.sock.recv(2048)

    def sleep_at_most(self, microseconds: int) -> None:
        """Sleep in the socket when it takes nothing and has nothing, but not for ever."""
        self.sock.setblocking(True)
        for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            self.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", 0, microseconds))

    def close(self) -> None:
        """Leave the switch."""
        self.sock.close()
        self.control.close()


class Visitor:
    """A guest that comes and goes without waiting for an answer.

    Args:
        control: The switch's control socket.

    Raises:
        BlockingIOError: The switch is behind with those that came before.
    """

    def __init__(self, control: Path) -> None:
        name = new_name()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.bind(name)
            self._control.setblocking(False)
            self._control.connect(os.fspath(control))
            self._control.send(REQUEST.pack(0xFEEDFACE, 3, 0, socket.AF_UNIX, name))
        except OSError:
            self.leave()
            raise

    def leave(self) -> None:
        """Go."""
        self._sock.close()
        self._control.close()
