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


class Guest:
    """A client of a switch; ``sock`` carries its frames.

    Args:
        control: The switch's control socket.
        number: The last byte of its address.
        timeout: In seconds, for everything it waits for.

    Raises:
        OSError: The switch does not answer as it should, or not in time.
    """

    def __init__(self, control: Path, number: int, timeout: float = 20) -> None:
        # All 108 bytes, as the UML kernel binds it: a shorter name would be another name.
        name = f"\0bench-{os.getpid()}-{time.monotonic_ns()}-{next(_serials)}".encode().ljust(108, b"\0")
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
            self.sock.connect(path if path[0] == 0 else path.partition(b"\0")[0])
        except OSError:
            self.close()
            raise

    def greet(self, others: list[Guest]) -> None:
        """Send a broadcast and wait until it has come to all the others, which are attached then."""
        self.sock.send((b"\xff" * 6 + self.mac + b"\x88\xb5").ljust(60, b"\0"))
        for other in others:
            other.sock.recv(2048)

    def close(self) -> None:
        """Leave the switch."""
        self.sock.close()
        self.control.close()
