"""What becomes of bytes that a guest sends as it likes, on a stream or as messages with headers.

The expectation is computed the plain way, from all that was sent at once.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

from support.deadline import scaled, wait_until
from support.guest_end import BROADCAST, events_until, frame, mac, plug
from umlab._clock import Clock, ManualClock
from umlab.engine.contract import Engine
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import LinkClosed
from umlab.switch.model import MAX_STREAM_LENGTH, MIN_FRAME, Encapsulation, Framing, Link, SwitchConfig

#: Everything that is forwarded goes to everybody, and little is too long.
CONFIG = SwitchConfig(hub=True, max_frame=300, egress_queue_depth=65_536)
_LAST = frame(BROADCAST, mac(0xE0D), payload=b"the last one")
EngineMaker = Callable[[SwitchConfig, Clock | None], Engine]


def check_stream(make: EngineMaker, chunks: list[bytes]) -> None:
    """Send chunks on a stream and end it; behind a length that no frame has, nobody reads any more.

    Raises:
        AssertionError: Not what should be was forwarded, counted, or reported as the end.
    """
    engine = make(CONFIG, ManualClock())
    engine.start()
    ours, theirs = socket.socketpair()
    listener = plug(engine, Framing.STREAM)
    try:
        ours.setblocking(False)
        port_no = engine.attach(Link(ours.detach(), Framing.STREAM))
        with theirs, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            theirs.settimeout(scaled(10))
            for chunk in chunks:
                theirs.sendall(chunk)
        events = events_until(engine, LinkClosed)
        frames, ending = frames_of(b"".join(chunks))
        ends = [(event.port_no, event.errno) for event in events if isinstance(event, LinkClosed)]
        assert ends == [(port_no, ending)], (ends, ending)
        _check(engine, port_no, counters_of(frames))
        forwarded = [each for each in frames if MIN_FRAME <= len(each) <= CONFIG.max_frame]
        assert listener.receive_many(len(forwarded)) == forwarded
        assert listener.waiting() == []
    finally:
        engine.stop()
        listener.close()


def check_messages(make: EngineMaker, given: Encapsulation, messages: list[bytes]) -> None:
    """Send messages on a link with headers.

    Raises:
        AssertionError: Not what should be was forwarded or counted.
    """
    engine = make(CONFIG, ManualClock())
    engine.start()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener = plug(engine, Framing.STREAM)
    try:
        ours.setblocking(False)
        port_no = engine.attach(Link(ours.detach(), Framing.DATAGRAM, encapsulation=given))
        front = (b"\x45".ljust(20, b"\0") if given.ip_header else b"") + given.rx_header
        with theirs:
            theirs.settimeout(scaled(10))
            for each in (*messages, front + bytes(given.rx_skip) + _LAST):
                theirs.send(each)
            found = [unwrapped(each, given) for each in messages]
            frames = [*(each for each in found if each is not None), _LAST]
            wanted = counters_of(frames)
            if bad := found.count(None):
                wanted.drops[DropReason.BAD_HEADER] = bad
            forwarded = [each for each in frames if MIN_FRAME <= len(each) <= CONFIG.max_frame]
            assert listener.receive_many(len(forwarded)) == forwarded
            _check(engine, port_no, wanted)
    finally:
        engine.stop()
        listener.close()


def frames_of(stream: bytes) -> tuple[list[bytes], int]:
    """Return the frames that lie in a stream, and the error number of its end."""
    frames = []
    while len(stream) >= 4:
        length = int.from_bytes(stream[:4], "big")
        if length > MAX_STREAM_LENGTH:
            return frames, errno.EMSGSIZE
        if len(stream) < 4 + length:
            break
        if length:
            frames.append(stream[4 : 4 + length])
        stream = stream[4 + length :]
    return frames, errno.EPROTO if stream else 0


def unwrapped(message: bytes, given: Encapsulation) -> bytes | None:
    """Return the frame in a message, ``None`` if it has another header."""
    if given.ip_header and message:
        size = (message[0] & 15) * 4
        if len(message) < size:
            return None
        message = message[size:]
    front = len(given.rx_header) + given.rx_skip
    return message[front:] if message.startswith(given.rx_header) and len(message) >= front else None


def counters_of(frames: list[bytes]) -> PortCounters:
    """Return what a port counts that lets these frames in."""
    counters = PortCounters()
    for each in frames:
        if len(each) < MIN_FRAME:
            counters.count_drop(DropReason.RUNT)
        elif len(each) > CONFIG.max_frame:
            counters.count_drop(DropReason.OVERSIZE)
        else:
            counters.rx_frames += 1
            counters.rx_bytes += len(each)
    return counters


def _check(engine: Engine, port_no: int, wanted: PortCounters) -> None:
    def as_wanted() -> bool:
        return engine.snapshot().ports[port_no] == wanted

    wait_until(as_wanted, 10, f"{wanted}, not {engine.snapshot().ports[port_no]}")
