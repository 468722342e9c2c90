"""Links on which each frame comes behind its length (QEMU's ``-netdev stream``): what comes in."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import random
import socket
import struct
import termios
import threading
from collections.abc import Callable

import pytest

from support.deadline import wait_until
from support.engines import ENGINES
from support.exchange import running_exchange
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    events_until,
    frame,
    idle_cpu_ns,
    mac,
    plug,
    plug_tcp_stream,
    with_length,
)
from umlab._clock import ManualClock
from umlab.engine.contract import Engine
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import LinkClosed
from umlab.switch.model import MAX_STREAM_LENGTH, Framing, SwitchConfig

EngineMaker = Callable[..., Engine]
#: Above it a thread spins.
SPINNING_NS = 50_000_000


@pytest.fixture
def ends(engine: Engine, stack: contextlib.ExitStack) -> tuple[GuestEnd, GuestEnd]:
    """Return a guest on a stream, and one that gets what it sends."""
    left, right = plug(engine, Framing.STREAM), plug(engine)
    stack.callback(left.close)
    stack.callback(right.close)
    return left, right


def numbered(count: int, size: int = 60, destination: bytes = BROADCAST) -> list[bytes]:
    return [frame(destination, mac(1), size, number.to_bytes(4, "big")) for number in range(count)]


def wait_until_read(sock: socket.socket) -> None:
    """Wait until the other end has read all that was sent."""

    def unread() -> int:
        size: int = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
        return size

    wait_until(lambda: unread() == 0, 10, "all is read")


def end_of(engine: Engine) -> list[tuple[int, int]]:
    """Wait for the end of a link and return all that ended, with their error numbers."""
    events = events_until(engine, LinkClosed)
    return [(event.port_no, event.errno) for event in events if isinstance(event, LinkClosed)]


class TestReading:
    def test_frames_that_are_cut_anywhere_come_whole(
        self, engine: Engine, ends: tuple[GuestEnd, GuestEnd]
    ) -> None:
        left, right = ends
        frames = [frame(BROADCAST, mac(1), size, b"\xff") for size in (14, 15, 30)]
        stream = b"".join(map(with_length, frames))
        for cut in range(1, len(stream)):
            left.sock.sendall(stream[:cut])
            wait_until_read(left.sock)
            left.sock.sendall(stream[cut:])
            assert right.receive_many(3) == frames, f"cut at {cut}"
        assert engine.snapshot().ports[1].drops == {}

    def test_byte_by_byte(self, ends: tuple[GuestEnd, GuestEnd]) -> None:
        left, right = ends
        for byte in with_length(hello := frame(BROADCAST, mac(1), 40)):
            left.sock.sendall(bytes([byte]))
            wait_until_read(left.sock)
        assert right.receive() == hello

    @pytest.mark.parametrize("kind", sorted(ENGINES))
    @pytest.mark.parametrize("count", [63, 64, 65, 128, 600])
    def test_more_frames_in_one_read_than_in_a_burst(self, kind: str, count: int) -> None:
        """Epoll knows nothing of frames that are read and not forwarded yet."""
        engine = ENGINES[kind](SwitchConfig(egress_queue_depth=1000), ManualClock())
        engine.start(held=True)
        left, right = plug(engine, Framing.STREAM), plug(engine)
        frames = numbered(count, 18)
        left.sock.sendall(b"".join(map(with_length, frames)))
        engine.release()
        assert right.receive_many(count) == frames
        engine.stop()
        left.close()
        right.close()

    @pytest.mark.parametrize("size", [70_000, 200_000])
    def test_stream_that_is_longer_than_a_read(
        self, engine: Engine, ends: tuple[GuestEnd, GuestEnd], size: int
    ) -> None:
        left, right = ends
        frames = [frame(BROADCAST, mac(1), 14 + number * 37 % 9000) for number in range(size // 4500)]
        writer = threading.Thread(target=left.sock.sendall, args=(b"".join(map(with_length, frames)),))
        writer.start()
        assert right.receive_many(len(frames)) == frames
        writer.join()

    def test_lengths_of_nothing_are_skipped(self, engine: Engine, ends: tuple[GuestEnd, GuestEnd]) -> None:
        left, right = ends
        hello = frame(BROADCAST, mac(1))
        left.sock.sendall(bytes(4) + with_length(hello) + bytes(4 * 20_000) + with_length(hello) + bytes(6))
        left.sock.sendall(bytes(2) + with_length(hello))
        assert right.receive_many(3) == [hello] * 3
        assert engine.snapshot().ports[1] == PortCounters(rx_frames=3, rx_bytes=180)

    def test_runts_and_oversize_frames_are_counted_and_the_stream_goes_on(
        self, make_engine: EngineMaker, stack: contextlib.ExitStack
    ) -> None:
        engine = make_engine(SwitchConfig(max_frame=1518))
        left, right = plug(engine, Framing.STREAM), plug(engine)
        stack.callback(left.close)
        stack.callback(right.close)
        sizes = (1, 13, 1519, 2048, 2049, 9018, 65_535, 65_536, 65_537, MAX_STREAM_LENGTH)
        longest = frame(BROADCAST, mac(1), 1518)
        for size in sizes:
            left.send(frame(BROADCAST, mac(9), size)[:size])
            left.send(longest)
            assert right.receive() == longest
        assert engine.snapshot().ports[1].drops == {DropReason.RUNT: 2, DropReason.OVERSIZE: 8}
        assert [entry.mac for entry in engine.fdb()] == [mac(1)]

    def test_longest_frame_of_all(self, make_engine: EngineMaker, stack: contextlib.ExitStack) -> None:
        engine = make_engine(SwitchConfig(max_frame=65_535))
        left, right = plug(engine, Framing.STREAM), plug(engine, Framing.STREAM)
        stack.callback(left.close)
        stack.callback(right.close)
        longest = frame(BROADCAST, mac(1), 65_535, random.Random(1).randbytes(65_000))
        for _ in range(3):
            left.send(longest)
            assert right.receive() == longest
        left.send(longest + b"\0")
        left.send(longest)
        assert right.receive() == longest
        assert engine.snapshot().ports[1].drops == {DropReason.OVERSIZE: 1}


class TestEnd:
    @pytest.mark.parametrize("length", [MAX_STREAM_LENGTH + 1, 1 << 31, (1 << 32) - 1])
    @pytest.mark.parametrize("rest", [b"", b"more" * 1000])
    def test_length_that_no_frame_has_ends_the_link(
        self, engine: Engine, ends: tuple[GuestEnd, GuestEnd], length: int, rest: bytes
    ) -> None:
        left, right = ends
        good = numbered(100)
        left.sock.sendall(b"".join(map(with_length, good)) + length.to_bytes(4, "big") + rest)
        assert end_of(engine) == [(1, errno.EMSGSIZE)]
        assert right.receive_many(100) == good, "what came before it"
        right.send(frame(BROADCAST, mac(2)))
        wait_until(lambda: engine.snapshot().ports[1].drops, 10, "the frame is dealt with")
        snapshot = engine.snapshot()
        assert snapshot.ports[1].drops == {DropReason.PEER_GONE: 1}
        assert snapshot.down == {1}

    @pytest.mark.parametrize("kind", sorted(ENGINES))
    @pytest.mark.parametrize("at_once", [True, False])
    @pytest.mark.parametrize(
        ("tail", "error_number"),
        [
            (b"", 0),
            (bytes(4), 0),
            (b"\0", errno.EPROTO),
            (b"\0\0\0\x3c", errno.EPROTO),
            (with_length(bytes(60))[:-1], errno.EPROTO),
        ],
    )
    @pytest.mark.parametrize("count", [0, 1, 150])
    def test_end_of_the_stream(
        self, kind: str, at_once: bool, tail: bytes, error_number: int, count: int
    ) -> None:
        """What was sent before it is forwarded, whether the engine finds the end behind it or comes later."""
        engine = ENGINES[kind](SwitchConfig(egress_queue_depth=1000), ManualClock())
        engine.start(held=at_once)
        left, right = plug(engine, Framing.STREAM), plug(engine)
        frames = numbered(count)
        left.sock.sendall(b"".join(map(with_length, frames)) + tail)
        if not at_once:
            wait_until_read(left.sock)
        left.close()
        if at_once:
            engine.release()
        assert end_of(engine) == [(1, error_number)]
        assert right.receive_many(count) == frames
        assert engine.snapshot().ports[1] == PortCounters(count, 60 * count)
        engine.detach(1)
        engine.stop()
        right.close()

    @pytest.mark.parametrize("kind", sorted(ENGINES))
    def test_end_behind_more_than_is_read_at_once(self, kind: str) -> None:
        """A hang-up is no end before all is read: here half of one frame is, and the whole of the next."""
        engine = ENGINES[kind](SwitchConfig(max_frame=65_535), ManualClock())
        engine.start(held=True)
        left, right = plug(engine, Framing.STREAM), plug(engine, Framing.STREAM)
        frames = [frame(BROADCAST, mac(1), 65_535), frame(BROADCAST, mac(1), 60_000)]
        left.sock.sendall(b"".join(map(with_length, frames)))
        left.close()
        engine.release()
        assert right.receive_many(2) == frames
        assert end_of(engine) == [(1, 0)]
        engine.stop()
        right.close()

    def test_guest_that_sends_no_more_still_gets_frames_until_its_end_is_seen(
        self, engine: Engine, ends: tuple[GuestEnd, GuestEnd]
    ) -> None:
        left, right = ends
        left.send(frame(BROADCAST, mac(1)))
        assert right.receive() == frame(BROADCAST, mac(1))
        left.sock.shutdown(socket.SHUT_WR)
        assert end_of(engine) == [(1, 0)]
        assert idle_cpu_ns() < SPINNING_NS

    def test_connection_that_is_reset(self, engine: Engine, stack: contextlib.ExitStack) -> None:
        left, right = plug_tcp_stream(engine), plug(engine)
        stack.callback(right.close)
        left.send(frame(BROADCAST, mac(1)))
        assert right.receive() == frame(BROADCAST, mac(1))
        left.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        left.close()
        assert end_of(engine) == [(1, errno.ECONNRESET)]
        assert idle_cpu_ns() < SPINNING_NS


def test_flood_of_nothing_but_lengths_holds_nobody_up(engine: Engine, stack: contextlib.ExitStack) -> None:
    hostile, left, right = plug(engine, Framing.STREAM), plug(engine), plug(engine)
    for guest in (hostile, left, right):
        stack.callback(guest.close)
    ended = threading.Event()

    def flood() -> None:
        nothing, runts = bytes(60_000), with_length(b"\0") * 12_000
        while not ended.is_set():
            hostile.sock.sendall(nothing)
            hostile.sock.sendall(runts)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        with running_exchange(left, right) as exchange:
            wait_until(lambda: exchange.rounds > 20, 20, "the others talk")
    finally:
        ended.set()
        thread.join()
    counters = engine.snapshot().ports
    assert set(counters[1].drops) == {DropReason.RUNT}
    assert not counters[2].drops
    assert not counters[3].drops
