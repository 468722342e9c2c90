"""A guest of the daemon protocol without a kernel: attaches as v0, v1 or v3 does and moves frames.

Written from the protocol's facts and not with umlab's codecs: a mistake there must not hide itself.
All calls block, with a time limit; the switch under test is another process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

from support.deadline import scaled

MAGIC = 0xFEEDFACE
BROADCAST = b"\xff" * 6
_ADDRESS = struct.Struct("=H108s")
_serial = itertools.count(1)


def mac(number: int) -> bytes:
    """Return a locally administered unicast address that ends in ``number`` (0..255)."""
    return bytes((2, 0, 0, 0, 0, number))


def frame(destination: bytes, source: bytes, payload: bytes = b"", size: int = 60) -> bytes:
    """Return a frame of an experimental type, padded to ``size`` bytes."""
    return (destination + source + b"\x88\xb5" + payload).ljust(size, b"\0")


def attach_request(version: int, name: bytes, request_type: int = 0) -> bytes:
    """Return the request that a guest of a protocol version sends; native byte order.

    Args:
        version: 0 (120 bytes), 1 (124), or another number (124 with version 3's layout).
        name: The guest's data socket, 108 bytes.
        request_type: 0 asks for a port; nothing else is defined.
    """
    address = _ADDRESS.pack(socket.AF_UNIX, name)
    if version == 0:
        return struct.pack("=I", request_type) + mac(0xEE) + address
    if version == 1:
        return struct.pack("=II", MAGIC, request_type) + mac(0xEE) + address
    return struct.pack("=III", MAGIC, version, request_type) + address + b"\0\0"


class FakeGuest:
    """One network card of a guest.

    Args:
        control: The switch's control socket.
        data: The switch's data socket, which a v0 guest knows from its command line.

    Attributes:
        name: The raw 108 bytes of our data socket: NUL, three of padding, our pid and a serial number,
            then bytes that are not zero, as a kernel leaves them.
        stream: The control stream, or a request's way to be broken on purpose.
        switch_name: Where frames go, 108 bytes; ``None`` before the reply.
    """

    def __init__(self, control: str | os.PathLike[str], data: str | os.PathLike[str] | None = None) -> None:
        self.name = (b"\0\0\0\0" + struct.pack("=II", os.getpid(), next(_serial))).ljust(107, b"\x80") + b"k"
        self.switch_name = os.fsencode(data) if data is not None else None
        self._directory = os.path.dirname(os.path.abspath(os.fsencode(control)))
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.datagrams.bind(self.name)
            # With a time limit, a full backlog would be an error and no reason to wait.
            self.stream.connect(os.fspath(control))
            self.stream.settimeout(scaled(10))
            self.datagrams.settimeout(scaled(10))
        except OSError:
            self.close()
            raise

    def attach(self, version: int = 3) -> FakeGuest:
        """Send a request and, from version 1 on, wait for the reply.

        Raises:
            ConnectionRefusedError: The switch closed the stream instead of answering.
        """
        self.stream.sendall(attach_request(version, self.name))
        if version > 0:
            reply = self.read_reply()
            if len(reply) != _ADDRESS.size:
                raise ConnectionRefusedError(f"the reply has {len(reply)} bytes, not {_ADDRESS.size}")
            family, self.switch_name = _ADDRESS.unpack(reply)
            assert family == socket.AF_UNIX, family
        return self

    def read_reply(self) -> bytes:
        """Return what the switch writes on the control stream until 110 bytes or its end came."""
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            while len(reply) < _ADDRESS.size and (part := self.stream.recv(_ADDRESS.size - len(reply))):
                reply += part
        return reply

    def wait_closed(self) -> None:
        """Wait until the switch has closed the control stream."""
        assert self.read_reply() == b""

    def send(self, data: bytes) -> None:
        """Send one datagram to the switch."""
        assert self.switch_name is not None, "not attached"
        name = self.switch_name
        if name[:1] != b"\0":
            # A path ends at the first NUL; a relative one counts from where the switch runs.
            name = os.path.join(self._directory, name.partition(b"\0")[0])
        self.datagrams.sendto(data, name)

    def receive(self) -> bytes:
        """Return the next frame from the switch; raises `TimeoutError` after 10 seconds (scaled)."""
        return self.datagrams.recv(65_536)

    def receive_waiting(self) -> list[bytes]:
        """Return the frames that have arrived, without waiting for more."""
        frames = []
        while select.select([self.datagrams], [], [], 0)[0]:
            frames.append(self.receive())
        return frames

    def close(self) -> None:
        """Close both sockets; a second call does nothing."""
        self.stream.close()
        self.datagrams.close()

    def __enter__(self) -> FakeGuest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def attached(
    control: str | os.PathLike[str], version: int = 3, data: str | os.PathLike[str] | None = None
) -> Iterator[FakeGuest]:
    """Attach a guest for the length of a block; ``data`` is what a v0 guest needs."""
    with FakeGuest(control, data) as guest:
        yield guest.attach(version)
