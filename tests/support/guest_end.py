"""Guests' ends of links: plain sockets, wired to an engine as the transports wire real guests."""

from __future__ import annotations

import os
import select
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from support.deadline import scaled
from umlab.engine.contract import Engine
from umlab.switch.events import Event
from umlab.switch.model import Encapsulation, Framing, Link

BROADCAST = b"\xff" * 6
#: What ``plug_headed`` has in front of its frames; the counter passes its end soon.
HEADERS = Encapsulation(b"from guest", b"to guest", rx_skip=3, tx_counter=0xFFFF_FFF0)
_READ_SIZE = 70_000
#: The kernel makes the least of it that it has.
_LEAST_BUFFER = 1


@dataclass
class GuestEnd:
    """One guest's socket.

    Attributes:
        sock: It; blocking, with a time limit.
        port_no: The port that it is attached to.
        to: Where it sends, ``None`` when it is connected.
    """

    sock: socket.socket
    port_no: int
    to: str | bytes | None = None

    def send(self, frame: bytes) -> None:
        """Send one frame, waiting while the switch is busy."""
        if self.to is None:
            self.sock.send(frame)
        else:
            self.sock.sendto(frame, self.to)

    def receive(self) -> bytes:
        """Return the next frame; raises TimeoutError when none comes."""
        return self.sock.recv(_READ_SIZE)

    def receive_many(self, count: int) -> list[bytes]:
        """Return the next ``count`` frames."""
        return [self.receive() for _ in range(count)]

    def waiting(self) -> list[bytes]:
        """Return the frames that are there already."""
        ready = select.poll()  # select() knows 1024 descriptors only
        ready.register(self.sock, select.POLLIN)
        frames = []
        while ready.poll(0):
            frames.append(self.receive())
        return frames

    def close(self) -> None:
        """Go away, as a guest that dies does."""
        self.sock.close()


class StreamEnd(GuestEnd):
    """The same where each frame comes behind its length."""

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        self.sock.sendall(with_length(frame))

    def receive(self) -> bytes:
        """Return the next frame; raises EOFError at the end."""
        return self._exactly(int.from_bytes(self._exactly(4), "big"))

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not (more := self.sock.recv(size - len(data))):
                raise EOFError(f"{len(data)} of {size} bytes")
            data += more
        return data


@dataclass
class HeadedEnd(GuestEnd):
    """The same with ``HEADERS``, which it checks.

    Attributes:
        counter: What is to come next.
    """

    counter: int = 0xFFFF_FFF0

    def send(self, frame: bytes) -> None:
        """Send one frame; what nobody looks at is another each time."""
        self.sock.send(HEADERS.rx_header + os.urandom(HEADERS.rx_skip) + frame)

    def receive(self) -> bytes:
        """Return the next frame."""
        header = HEADERS.tx_header + self.counter.to_bytes(4, "big")
        message = self.sock.recv(_READ_SIZE)
        assert message.startswith(header), (message[:20], header)
        self.counter = (self.counter + 1) % (1 << 32)
        return message.removeprefix(header)


def mac(number: int) -> bytes:
    """Return a locally administered unicast address."""
    return b"\x02" + number.to_bytes(5, "big")


def frame(dst: bytes, src: bytes, size: int = 60, payload: bytes = b"") -> bytes:
    """Return a frame of at least ``size`` bytes."""
    return (dst + src + b"\x88\xb5" + payload).ljust(size, b"\0")


def with_length(frame: bytes) -> bytes:
    """Return a frame as it lies in a stream."""
    return len(frame).to_bytes(4, "big") + frame


#: What socket pairs can be: an AF_PACKET socket wants privileges.
PLUGGED = (Framing.DATAGRAM, Framing.SEQPACKET, Framing.DEVICE, Framing.STREAM)


def plug(engine: Engine, framing: Framing = Framing.DATAGRAM, port_no: int | None = None) -> GuestEnd:
    """Attach a guest over a socket pair: both ends are connected to each other."""
    kinds = {Framing.DATAGRAM: socket.SOCK_DGRAM, Framing.STREAM: socket.SOCK_STREAM}
    ours, theirs = socket.socketpair(socket.AF_UNIX, kinds.get(framing, socket.SOCK_SEQPACKET))
    guest = _attach(engine, Link(_surrender(ours), framing), theirs, port_no)
    return StreamEnd(theirs, guest.port_no) if framing is Framing.STREAM else guest


def plug_narrow_stream(engine: Engine) -> StreamEnd:
    """Attach a guest on a stream of which our end holds some 4 kB only: a long frame goes out in parts."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LEAST_BUFFER)
    return _attach_stream(engine, ours, theirs)


def plug_tcp_stream(engine: Engine) -> StreamEnd:
    """Attach a guest over a TCP connection with short buffers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.socket()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _LEAST_BUFFER)
        theirs.connect(server.getsockname())
        ours, _ = server.accept()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _LEAST_BUFFER)
    return _attach_stream(engine, ours, theirs)


def plug_headed(engine: Engine, port_no: int | None = None) -> GuestEnd:
    """Attach a guest that has ``HEADERS`` in front of its frames."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    link = Link(_surrender(ours), Framing.DATAGRAM, encapsulation=HEADERS)
    return HeadedEnd(theirs, _attach(engine, link, theirs, port_no).port_no)


def plug_monitor(engine: Engine, port_no: int | None = None) -> GuestEnd:
    """Attach who is sent every frame, whomever it is for."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return _attach(engine, Link(_surrender(ours), Framing.DATAGRAM, monitor=True), theirs, port_no)


def plug_unconnected(engine: Engine, port_no: int | None = None) -> GuestEnd:
    """Attach a guest as UML's daemon transport is: its socket is bound and not connected.

    Its queue takes ``max_dgram_qlen`` + 1 frames, then our end cannot send.
    """
    theirs = _named_datagram_socket()
    ours = _named_datagram_socket()
    ours.connect(theirs.getsockname())
    name = ours.getsockname()
    return _attach(engine, Link(_surrender(ours), Framing.DATAGRAM), theirs, port_no, to=name)


def plug_shared(engine: Engine, shared: socket.socket, port_no: int | None = None) -> GuestEnd:
    """Attach a guest of daemon protocol v0: it sends to the socket that all of those share."""
    name = b"\0" + os.urandom(107)
    theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.bind(name)
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.connect(name)
    link = Link(_surrender(ours), Framing.DATAGRAM, shared.fileno(), name)
    return _attach(engine, link, theirs, port_no, to=shared.getsockname())


def unread_limit() -> int:
    """Return how many frames an unconnected guest's socket holds."""
    return int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text()) + 1


def traffic_of(engine: Engine, port_no: int) -> int:
    """Return how many frames a port has let in or dropped."""
    counters = engine.snapshot().ports[port_no]
    return counters.rx_frames + sum(counters.drops.values())


def idle_cpu_ns() -> int:
    """Return the least processor time that all our other threads used in one of three short spans.

    A thread that spins uses all of each, one that waits uses none.
    """
    spans: list[int] = []
    for _ in range(3):
        before = _others_cpu_ns()
        select.select([], [], [], 0.1)
        spans.append(_others_cpu_ns() - before)
    return min(spans)


def events_until(engine: Engine, kind: type[Event]) -> list[Event]:
    """Wait for an event of a kind by the engine's descriptor, and return all that came until then."""
    events: list[Event] = []
    while not any(isinstance(event, kind) for event in events):
        assert select.select([engine.event_fd()], [], [], scaled(10))[0], f"no {kind.__name__}: {events}"
        events += engine.take_events()
    return events


def is_open(fd: int) -> bool:
    """Say whether a descriptor number is in use."""
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _others_cpu_ns() -> int:
    return time.process_time_ns() - time.thread_time_ns()


def _named_datagram_socket() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind("")
    return sock


def _surrender(sock: socket.socket) -> int:
    sock.setblocking(False)
    return sock.detach()


def _attach_stream(engine: Engine, ours: socket.socket, theirs: socket.socket) -> StreamEnd:
    guest = _attach(engine, Link(_surrender(ours), Framing.STREAM), theirs, None)
    return StreamEnd(theirs, guest.port_no)


def _attach(
    engine: Engine, link: Link, theirs: socket.socket, port_no: int | None, to: str | bytes | None = None
) -> GuestEnd:
    theirs.settimeout(scaled(10))
    return GuestEnd(theirs, engine.attach(link, port_no), to)
