"""What a stream is sent: its socket takes bytes, and half a frame may be out."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import termios
import threading
from collections.abc import Callable

import pytest

from support.deadline import wait_until
from support.exchange import Exchange, running_exchange
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    StreamEnd,
    events_until,
    frame,
    idle_cpu_ns,
    mac,
    plug,
    plug_narrow_stream,
    plug_tcp_stream,
    plug_unconnected,
    traffic_of,
)
from umlab.engine.contract import Engine
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import LinkClosed
from umlab.switch.model import SwitchConfig

EngineMaker = Callable[..., Engine]
#: Above it a thread spins.
SPINNING_NS = 50_000_000


def numbered(count: int, size: int = 60, destination: bytes = BROADCAST) -> list[bytes]:
    return [frame(destination, mac(1), size, number.to_bytes(4, "big")) for number in range(count)]


def readable(sock: socket.socket) -> int:
    """Return how many bytes can be read."""
    size: int = struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0]
    return size


def end_of(engine: Engine) -> list[tuple[int, int]]:
    """Wait for the end of a link and return all that ended, with their error numbers."""
    events = events_until(engine, LinkClosed)
    return [(event.port_no, event.errno) for event in events if isinstance(event, LinkClosed)]


@pytest.fixture(params=[plug_narrow_stream, plug_tcp_stream], ids=["unix", "tcp"])
def plug_slow(request: pytest.FixtureRequest) -> Callable[[Engine], StreamEnd]:
    """Return each way to attach a stream whose buffers are short."""
    chosen: Callable[[Engine], StreamEnd] = request.param
    return chosen


def stopped_in_mid_frame(
    engine: Engine, sender: GuestEnd, slow: StreamEnd, frames: list[bytes]
) -> tuple[int, int]:
    """Send until a frame is half out and others wait.

    Returns:
        How many are out whole, and how many wait, the half one included.
    """
    for each in frames:
        sender.send(each)
    wait_until(lambda: traffic_of(engine, sender.port_no) >= len(frames), 10, "all are dealt with")
    snapshot = engine.snapshot()
    return snapshot.ports[slow.port_no].tx_frames, snapshot.queued[slow.port_no]


class TestWriting:
    DEPTH = 8

    @pytest.fixture
    def engine(self, make_engine: EngineMaker) -> Engine:
        return make_engine(SwitchConfig(egress_queue_depth=self.DEPTH))

    def test_what_a_stopped_reader_is_promised_comes_whole_and_in_order(
        self, engine: Engine, plug_slow: Callable[[Engine], StreamEnd], stack: contextlib.ExitStack
    ) -> None:
        sender, slow = plug(engine), plug_slow(engine)
        stack.callback(sender.close)
        stack.callback(slow.close)
        frames = numbered(400, 9018)
        out, waiting = stopped_in_mid_frame(engine, sender, slow, frames)
        lost = len(frames) - out - waiting
        assert waiting == self.DEPTH
        assert engine.snapshot().ports[slow.port_no] == PortCounters(
            tx_frames=out, tx_bytes=9018 * out, drops={DropReason.TAIL: lost}
        )
        assert slow.receive_many(out + waiting) == frames[: out + waiting]
        wait_until(lambda: engine.snapshot().queued[slow.port_no] == 0, 10, "none waits any more")
        for each in frames[:3]:
            sender.send(each)
            assert slow.receive() == each
        assert engine.snapshot().ports[slow.port_no].tx_frames == out + waiting + 3
        assert slow.waiting() == []
        assert idle_cpu_ns() < SPINNING_NS

    def test_half_a_frame_is_out_and_its_other_half_comes_first(
        self, engine: Engine, stack: contextlib.ExitStack
    ) -> None:
        sender, slow = plug(engine), plug_narrow_stream(engine)
        stack.callback(sender.close)
        stack.callback(slow.close)
        frames = [frame(BROADCAST, mac(1), 9018, os.urandom(9000)) for _ in range(3)]
        out, waiting = stopped_in_mid_frame(engine, sender, slow, frames)
        assert (out, waiting) == (0, 3)
        assert 4 < readable(slow.sock) < 9018
        assert slow.receive_many(3) == frames

    def test_reader_that_is_slow_loses_whole_frames_only(
        self, engine: Engine, plug_slow: Callable[[Engine], StreamEnd], stack: contextlib.ExitStack
    ) -> None:
        sender, slow = plug(engine), plug_slow(engine)
        stack.callback(sender.close)
        stack.callback(slow.close)
        frames = [
            frame(BROADCAST, mac(1), 20 + number * 997 % 9000, number.to_bytes(4, "big"))
            for number in range(1000)
        ]
        last = frame(mac(0), mac(1), payload=b"the end")
        received: list[bytes] = []

        def read() -> None:
            while (each := slow.receive()) != last:
                received.append(each)

        reader = threading.Thread(target=read)
        reader.start()
        for each in frames:
            sender.send(each)
        wait_until(lambda: traffic_of(engine, sender.port_no) == len(frames), 20, "all are dealt with")
        wait_until(lambda: engine.snapshot().queued[slow.port_no] == 0, 10, "none waits")
        sender.send(last)
        reader.join()
        drops = engine.snapshot().ports[slow.port_no].drops
        assert len(received) == len(frames) - drops.get(DropReason.TAIL, 0)
        places = [int.from_bytes(each[14:18], "big") for each in received]
        assert places == sorted(set(places))
        assert received == [frames[place] for place in places]

    def test_reader_that_goes_in_mid_frame(self, engine: Engine, stack: contextlib.ExitStack) -> None:
        sender, gone, other = plug(engine), plug_narrow_stream(engine), plug(engine)
        stack.callback(sender.close)
        stack.callback(other.close)
        for each in numbered(20, 9018):
            sender.send(each)
            assert other.receive() == each
        out = engine.snapshot().ports[gone.port_no].tx_frames
        assert engine.snapshot().queued[gone.port_no] == self.DEPTH
        gone.close()
        assert [port_no for port_no, _ in end_of(engine)] == [gone.port_no]
        snapshot = engine.snapshot()
        assert snapshot.queued[gone.port_no] == 0
        assert snapshot.ports[gone.port_no].drops == {
            DropReason.TAIL: 20 - out - self.DEPTH,
            DropReason.PEER_GONE: self.DEPTH,
        }
        sender.send(after := frame(BROADCAST, mac(1)))
        assert other.receive() == after
        assert idle_cpu_ns() < SPINNING_NS

    def test_reader_that_reads_no_more_and_sends_on(
        self, engine: Engine, stack: contextlib.ExitStack
    ) -> None:
        sender, deaf = plug(engine), plug_narrow_stream(engine)
        stack.callback(sender.close)
        stack.callback(deaf.close)
        out, waiting = stopped_in_mid_frame(engine, sender, deaf, numbered(3, 9018))
        deaf.sock.shutdown(socket.SHUT_RD)
        while deaf.sock.recv(10_000):
            pass
        for each in numbered(5, 18):
            sender.send(each)
        wait_until(
            lambda: engine.snapshot().ports[deaf.port_no].drops == {DropReason.PEER_GONE: waiting + 5},
            10,
            "all is dropped",
        )
        assert engine.snapshot().ports[deaf.port_no].tx_frames == out
        deaf.send(words := frame(BROADCAST, mac(2)))
        assert sender.receive() == words
        assert idle_cpu_ns() < SPINNING_NS

    def test_detach_with_half_a_frame_out(self, engine: Engine, stack: contextlib.ExitStack) -> None:
        sender = plug(engine)
        stack.callback(sender.close)
        for _ in range(20):
            slow = plug_narrow_stream(engine)
            stopped_in_mid_frame(engine, sender, slow, numbered(3, 9018))
            assert engine.debug_counts()["queued_frames"] == 3
            engine.detach(slow.port_no)
            assert engine.debug_counts()["queued_frames"] == 0
            with pytest.raises(EOFError):
                slow.receive()
            slow.close()
            fresh = plug_narrow_stream(engine)
            sender.send(frame(BROADCAST, mac(1)))
            assert fresh.receive() == frame(BROADCAST, mac(1)), "nothing of the one before"
            engine.detach(fresh.port_no)
            fresh.close()
            engine.detach(sender.port_no)
            sender.close()
            sender = plug(engine)
            stack.callback(sender.close)

    def test_many_streams_that_stop_in_mid_frame_while_all_buffers_are_held(
        self, make_engine: EngineMaker, stack: contextlib.ExitStack
    ) -> None:
        """Each holds the buffer of its half frame, however few are left: the engine was killed by that."""
        engine = make_engine(SwitchConfig())
        left, right, flooder = plug_unconnected(engine), plug_unconnected(engine), plug(engine)
        hoarders = [plug_unconnected(engine) for _ in range(20)]
        for guest in (left, right, flooder, *hoarders):
            stack.callback(guest.close)
        for guest in hoarders:
            guest.send(frame(mac(guest.port_no), mac(guest.port_no)))
        wait_until(lambda: len(engine.fdb()) == len(hoarders), 10, "all are known")
        for guest in hoarders:
            for each in numbered(600, 9000, mac(guest.port_no)):
                flooder.send(each)
        streams = [plug_narrow_stream(engine) for _ in range(150)]
        for guest in streams:
            stack.callback(guest.close)
            guest.send(frame(mac(guest.port_no), mac(guest.port_no)))
        known = len(hoarders) + len(streams) + 1  # the flooder
        wait_until(lambda: len(engine.fdb()) == known, 10, "all are known")
        with running_exchange(left, right):
            for guest in streams:
                for each in numbered(3, 9000, mac(guest.port_no)):
                    flooder.send(each)
            total = 600 * len(hoarders) + 3 * len(streams)
            wait_until(lambda: traffic_of(engine, flooder.port_no) == total, 20, "all are dealt with")
        drops = {guest.port_no: engine.snapshot().ports[guest.port_no].drops for guest in streams}
        for guest in hoarders:
            engine.detach(guest.port_no)
        for guest in streams:
            flooder.send(last := frame(mac(guest.port_no), mac(1), payload=b"the last one"))
            received = []
            while (each := guest.receive()) != last:
                received.append(each)
            sent = numbered(3, 9000, mac(guest.port_no))
            places = [sent.index(each) for each in received if each[6:12] == mac(1)]
            assert places == sorted(set(places))
            assert len(places) + drops[guest.port_no].get(DropReason.TAIL, 0) >= 3


def test_tcp_both_ways(engine: Engine, stack: contextlib.ExitStack) -> None:
    left, right = plug_tcp_stream(engine), plug_tcp_stream(engine)
    stack.callback(left.close)
    stack.callback(right.close)
    exchange = Exchange(left, right)
    exchange.introduce()
    exchange.run(4)
    assert not any(port.drops for port in engine.snapshot().ports.values())
