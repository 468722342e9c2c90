"""Captures from beginning to end: what is kept and lost adds up, and nothing is left behind."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import resource
import select
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.capture_reading import ALL, IN, OUT, held, number_of, seen_until
from support.deadline import wait_until
from support.engines import ENGINES
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    events_until,
    frame,
    is_open,
    mac,
    plug,
    plug_headed,
    plug_unconnected,
)
from support.pcapng_blocks import read_blocks, read_packets
from umlab.engine.contract import (
    MAX_CAPTURES,
    MIN_CAPTURE,
    CaptureCount,
    CaptureOrder,
    Engine,
)
from umlab.errors import StateError, SwitchError
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import LinkClosed
from umlab.switch.model import (
    Framing,
    SwitchConfig,
)

EngineMaker = Callable[..., Engine]
Keep = Callable[[GuestEnd], GuestEnd]
STP = bytes.fromhex("0180c2000000")
#: What a process may grow for other reasons; the memory of the captures is more.
SLACK = 8 << 20
IS_SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


def is_readable(fd: int) -> bool:
    return bool(select.select([fd], [], [], 0)[0])


def came_to(engine: Engine, port_no: int) -> int:
    counters = engine.snapshot().ports[port_no]
    drops = (counters.drops.get(reason, 0) for reason in (DropReason.OVERSIZE, DropReason.SAME_PORT))
    return counters.rx_frames + sum(drops)


def queued_frames(engine: Engine, *port_nos: int) -> int:
    queued = engine.snapshot().queued
    return sum(queued[port_no] for port_no in port_nos)


def total_of(counters: PortCounters) -> int:
    return counters.rx_frames + counters.tx_frames + sum(counters.drops.values())


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def no_more_descriptors() -> Iterator[None]:
    """Let the kernel give out none, whoever asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
            os.eventfd(0)
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class TestExactness:
    def test_kept_and_lost_add_up_to_the_counters_whatever_happens(
        self, make_engine: EngineMaker, keep: Keep
    ) -> None:
        """Drops of both directions, a stopped guest, guests that leave, and a reader beside it all."""
        engine = make_engine(SwitchConfig(max_frame=2000, egress_queue_depth=16))
        guests = [
            keep(plug(engine)),
            keep(plug(engine, Framing.STREAM)),
            keep(plug_headed(engine)),
            keep(plug_unconnected(engine)),
        ]
        leaving = keep(plug(engine, Framing.SEQPACKET))
        capture = engine.capture(CaptureOrder(capacity=MIN_CAPTURE))
        taken: list[bytes] = []
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                select.select([capture.ready_fd()], [], [], 0.01)
                taken.append(capture.read(50_000))

        def drain(guest: GuestEnd) -> None:
            while not done.is_set():
                select.select([guest.sock], [], [], 0.01)
                guest.waiting()

        def send(guest: GuestEnd, number: int) -> None:
            rng = random.Random(number)
            for _ in range(1500):
                target = rng.choice([BROADCAST, mac(1), mac(2), mac(3), mac(4), STP])
                guest.send(frame(target, mac(number), rng.choice([14, 60, 400, 1514, 2001])))

        senders = [
            threading.Thread(target=send, args=(guest, number)) for number, guest in enumerate(guests[:3], 1)
        ]
        readers = [threading.Thread(target=drain, args=(guest,)) for guest in guests[:3]]
        threads = [threading.Thread(target=read), *readers, *senders]
        for thread in threads:
            thread.start()
        try:
            for thread in senders:
                thread.join()
            leaving.close()
            events_until(engine, LinkClosed)
            wait_until(
                lambda: [came_to(engine, number) for number in (1, 2, 3)] == [1500] * 3, 20, "all came"
            )
            wait_until(lambda: queued_frames(engine, 1, 2, 3, 5) == 0, 5, "all went")
        finally:
            done.set()
            for thread in threads:
                thread.join()
        capture.close()
        packets = read_packets(b"".join(taken) + capture.read(ALL))
        counts, ports = capture.counts(), engine.snapshot().ports
        for interface, port_no in enumerate(capture.interfaces()):
            mine = [packet for packet in packets if packet.interface == interface]
            count, counters = counts[port_no], ports[port_no]
            assert count.seen == count.accepted == total_of(counters)
            assert len(mine) + count.lost == count.seen
            assert sum(packet.lost for packet in mine) <= count.lost
            if not count.lost:
                ways = Counter((packet.direction, packet.comment) for packet in mine)
                assert ways[IN, ""] == counters.rx_frames
                assert ways[OUT, ""] == counters.tx_frames
                assert {reason.value: number for reason, number in counters.drops.items()} == Counter(
                    packet.comment.removeprefix("drop: ") for packet in mine if packet.comment
                )

    def test_reader_that_keeps_up_has_every_frame_in_order(
        self, engine: Engine, guests: list[GuestEnd]
    ) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1}), capacity=1 << 22))
        sent = 5000
        taken = bytearray()
        done = threading.Event()

        def read() -> None:
            while not done.is_set():
                select.select([capture.ready_fd()], [], [], 0.01)
                taken.extend(capture.read(65_536))

        reader = threading.Thread(target=read)
        reader.start()
        for number in range(sent):
            guests[0].send(frame(mac(9), mac(9), 60 + number % 900, number.to_bytes(4, "big")))
        seen_until(capture, 1, sent)
        done.set()
        reader.join()
        taken.extend(capture.read(ALL))
        packets = read_packets(bytes(taken))
        assert capture.counts()[1].lost == 0
        assert [number_of(packet) for packet in packets] == list(range(sent))
        assert all(packet.at_ns <= after.at_ns for packet, after in itertools.pairwise(packets))


class TestEnd:
    def test_closed_capture_keeps_what_it_has_and_nothing_more(
        self, engine: Engine, guests: list[GuestEnd]
    ) -> None:
        capture = engine.capture(CaptureOrder(frozenset({1})))
        other = engine.capture(CaptureOrder(frozenset({1})))
        guests[0].send(frame(mac(9), mac(9)))
        seen_until(capture, 1, 1)
        capture.close()
        capture.close()
        assert is_readable(capture.ready_fd())
        guests[0].send(frame(mac(9), mac(9)))
        seen_until(other, 1, 2)
        with contextlib.closing(plug(engine)):
            assert capture.interfaces() == [1]
        assert capture.counts() == {1: CaptureCount(1, 1, 0)}
        assert len(read_blocks(capture.read(ALL))) == 1
        assert capture.read(ALL) == b""
        # As the end of a file is: who waits for more must learn that none will come.
        assert is_readable(capture.ready_fd())
        assert engine.debug_counts()["captures"] == 1

    def test_captures_end_with_the_engine(self, make_engine: EngineMaker, keep: Keep) -> None:
        engine = make_engine()
        guest = keep(plug(engine))
        capture = engine.capture(CaptureOrder())
        guest.send(frame(mac(9), mac(9)))
        seen_until(capture, 1, 1)
        waiter = select.poll()
        waiter.register(capture.ready_fd(), select.POLLIN)
        assert waiter.poll(0) == []
        engine.stop()
        assert waiter.poll(0)
        assert set(engine.debug_counts().values()) == {0}
        capture.close()
        assert capture.interfaces() == [1]
        assert capture.counts() == {1: CaptureCount(1, 1, 0)}
        assert len(held(capture)) == len(read_packets(capture.read(ALL))) == 1

    def test_descriptor_is_open_as_long_as_there_is_the_capture(self, engine: Engine) -> None:
        capture = engine.capture(CaptureOrder())
        fd = capture.ready_fd()
        capture.close()
        assert is_open(fd)
        del capture
        assert not is_open(fd)

    @pytest.mark.parametrize("kind", sorted(ENGINES))
    def test_engine_that_does_not_run_has_none(self, kind: str) -> None:
        engine = ENGINES[kind](SwitchConfig(), None)
        with pytest.raises(StateError, match="does not run"):
            engine.capture(CaptureOrder())
        engine.start()
        engine.stop()
        with pytest.raises(StateError, match="does not run"):
            engine.capture(CaptureOrder())

    def test_as_many_as_may_be_open_at_once(self, engine: Engine) -> None:
        captures = [engine.capture(CaptureOrder(capacity=MIN_CAPTURE)) for _ in range(MAX_CAPTURES)]
        counts = engine.debug_counts()
        assert counts["captures"] == MAX_CAPTURES
        with pytest.raises(StateError, match=f"{MAX_CAPTURES} captures"):
            engine.capture(CaptureOrder(capacity=MIN_CAPTURE))
        captures[3].close()
        assert engine.debug_counts()["descriptors"] == counts["descriptors"] - 1
        engine.capture(CaptureOrder(capacity=MIN_CAPTURE)).close()
        assert engine.debug_counts()["captures"] == MAX_CAPTURES - 1

    def test_frames_flow_on_where_a_capture_finds_no_descriptor(
        self, engine: Engine, guests: list[GuestEnd]
    ) -> None:
        with no_more_descriptors(), pytest.raises(SwitchError, match="no descriptor"):
            engine.capture(CaptureOrder())
        assert engine.debug_counts()["captures"] == 0
        guests[0].send(frame(BROADCAST, mac(1)))
        assert guests[1].receive()
        assert guests[2].receive()

    def test_captures_that_come_and_go_leave_nothing(self, engine: Engine, guests: list[GuestEnd]) -> None:
        def come_and_go(times: int) -> None:
            for _ in range(times):
                capture = engine.capture(CaptureOrder(frozenset({1}), capacity=MIN_CAPTURE, overwrite=True))
                for _ in range(100):
                    guests[0].send(frame(mac(9), mac(9), 9000))
                seen_until(capture, 1, 100)
                capture.close()

        come_and_go(10)
        before = resident(), len(os.listdir("/proc/self/fd"))
        come_and_go(60)
        assert len(os.listdir("/proc/self/fd")) == before[1]
        assert IS_SANITIZED or resident() - before[0] < SLACK
