"""Engines from start to stop: ports that come, go and break, events, and nothing left behind."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from support.deadline import scaled, wait_until
from support.engines import ENGINES
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    events_until,
    frame,
    idle_cpu_ns,
    is_open,
    mac,
    plug,
    plug_unconnected,
    unread_limit,
)
from umlab._clock import ManualClock
from umlab.engine._py import PyEngine
from umlab.engine._pyframing import BURST
from umlab.engine.contract import Engine
from umlab.errors import NoSuchPort, StateError, SwitchError
from umlab.switch.core import SwitchCore
from umlab.switch.counters import DropReason
from umlab.switch.events import Event, LinkClosed, MacLearned, PortAttached, PortDetached
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import MAX_AGEING_NS, Framing, Link, SwitchConfig

EngineMaker = Callable[..., Engine]
RIGHT_KINDS = {
    Framing.DATAGRAM: socket.SOCK_DGRAM,
    Framing.SEQPACKET: socket.SOCK_SEQPACKET,
    Framing.STREAM: socket.SOCK_STREAM,
}
#: A thread that spins uses nearly all of the 100 ms that it is watched for.
SPINNING_NS = 50_000_000


def closed_links(events: list[Event]) -> list[tuple[int, int]]:
    return [(event.port_no, event.errno) for event in events if isinstance(event, LinkClosed)]


def datagram_link() -> tuple[Link, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    return Link(ours.detach(), Framing.DATAGRAM), theirs


class TestStartAndStop:
    def test_stop_closes_everything_and_ends_the_thread(self, make_engine: EngineMaker) -> None:
        before = set(os.listdir("/proc/self/fd")), threading.active_count()
        engine = make_engine()
        guests = [plug(engine), plug(engine, Framing.SEQPACKET), plug(engine, Framing.DEVICE)]
        stopped_guest = plug_unconnected(engine)
        for _ in range(unread_limit() + 5):
            guests[0].send(frame(BROADCAST, mac(1)))
        wait_until(lambda: engine.debug_counts()["queued_frames"] == 5, 5, "frames queue up")
        held = engine.debug_counts()
        assert (held["ports"], held["threads"]) == (4, 1)
        assert held["descriptors"] >= 4
        engine.stop()
        engine.stop()
        assert set(engine.debug_counts().values()) == {0}
        for guest in (*guests, stopped_guest):
            guest.close()
        assert (set(os.listdir("/proc/self/fd")), threading.active_count()) == before

    def test_stop_reports_the_end_of_each_port(self, make_engine: EngineMaker) -> None:
        engine = make_engine(clock=ManualClock(7))
        guest = plug(engine)
        engine.stop()
        assert engine.take_events() == [PortAttached(7, 1), PortDetached(7, 1)]
        guest.close()

    @pytest.mark.parametrize("kind", sorted(ENGINES))
    def test_calls_outside_the_running_time_are_refused(self, kind: str) -> None:
        engine = ENGINES[kind](SwitchConfig(), None)
        link, theirs = datagram_link()
        for _ in range(2):
            with pytest.raises(StateError):
                engine.attach(link)
            with pytest.raises(StateError):
                engine.event_fd()
            with pytest.raises(NoSuchPort):
                engine.detach(1)
            assert engine.fdb() == []
            assert engine.take_events() == []
            assert engine.snapshot().ports == {}
            engine.stop()
        engine.start()
        with pytest.raises(StateError):
            engine.start()
        engine.stop()
        with pytest.raises(StateError):
            engine.start()
        with pytest.raises(StateError):
            engine.attach(link)
        os.close(link.fd)
        theirs.close()

    def test_idle_engine_uses_no_processor_time(self, engine: Engine) -> None:
        guests = [plug(engine), plug_unconnected(engine), plug(engine, Framing.SEQPACKET)]
        guests[0].send(frame(BROADCAST, mac(1)))
        assert guests[1].receive()
        assert idle_cpu_ns() < SPINNING_NS
        for guest in guests:
            guest.close()


class TestAttach:
    def test_ports_take_the_lowest_free_number(self, make_engine: EngineMaker) -> None:
        engine = make_engine(SwitchConfig(first_port_no=5))
        guests = [plug(engine) for _ in range(3)]
        assert [guest.port_no for guest in guests] == [5, 6, 7]
        engine.detach(6)
        guests.append(plug(engine))
        assert guests[-1].port_no == 6
        for guest in guests:
            guest.close()

    @pytest.mark.parametrize(
        ("framing", "kind"),
        [
            (framing, kind)
            for framing in Framing
            for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM)
            if RIGHT_KINDS.get(framing) != kind
        ],
    )
    def test_descriptor_of_the_wrong_kind_is_refused_and_stays_the_callers(
        self, engine: Engine, framing: Framing, kind: int
    ) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)  # blocking: no device either
        with pytest.raises(SwitchError, match=str(ours.fileno())):
            engine.attach(Link(ours.fileno(), framing))
        ours.send(b"still mine")
        assert theirs.recv(20) == b"still mine"
        assert engine.debug_counts()["ports"] == 0
        ours.close()
        theirs.close()

    @pytest.mark.parametrize("framing", list(Framing))
    def test_descriptor_that_is_not_open_is_refused(self, engine: Engine, framing: Framing) -> None:
        with pytest.raises(SwitchError):
            engine.attach(Link(987_654, framing))

    def test_file_that_epoll_cannot_watch_is_refused(
        self, engine: Engine, short_dir: os.PathLike[str]
    ) -> None:
        fd = os.open(os.path.join(short_dir, "file"), os.O_CREAT | os.O_RDWR | os.O_NONBLOCK)
        with pytest.raises(SwitchError):
            engine.attach(Link(fd, Framing.DEVICE))
        assert is_open(fd)
        os.close(fd)

    def test_descriptor_that_is_attached_already_is_refused(self, engine: Engine) -> None:
        link, theirs = datagram_link()
        assert engine.attach(link) == 1
        with pytest.raises(SwitchError, match="already"):
            engine.attach(link)
        assert engine.debug_counts()["ports"] == 1
        theirs.close()


class TestDetach:
    def test_detach_closes_the_descriptor_and_forgets_the_addresses(self, engine: Engine) -> None:
        guests = [plug(engine), plug(engine), plug(engine)]
        guests[0].send(frame(BROADCAST, mac(1)))
        guests[1].send(frame(BROADCAST, mac(2)))
        for guest, count in zip(guests, (1, 1, 2), strict=True):
            guest.receive_many(count)
        engine.detach(1)
        with pytest.raises(ConnectionError):
            guests[0].send(frame(BROADCAST, mac(1)))
        assert [entry.mac for entry in engine.fdb()] == [mac(2)]
        guests[2].send(frame(mac(1), mac(3)))
        assert guests[1].receive() == frame(mac(1), mac(3))
        with pytest.raises(NoSuchPort):
            engine.detach(1)
        for guest in guests:
            guest.close()

    def test_descriptor_with_a_duplicate_elsewhere_is_served_no_more(self, engine: Engine) -> None:
        """A closed descriptor stays in the epoll set while a duplicate is open, and cannot be removed."""
        link, theirs = datagram_link()
        duplicate = os.dup(link.fd)
        port_no = engine.attach(link)
        engine.detach(port_no)
        theirs.send(frame(BROADCAST, mac(1)))
        assert idle_cpu_ns() < SPINNING_NS
        assert engine.fdb() == []
        os.close(duplicate)
        theirs.close()

    def test_ports_that_come_and_go_under_load_disturb_nobody(self, engine: Engine) -> None:
        """A descriptor number is taken again at once: what epoll said of its last file must not count."""
        sender, reader = plug(engine), plug(engine)
        stop = threading.Event()

        def flood() -> None:
            while not stop.is_set():
                sender.send(frame(mac(2), mac(1)))

        thread = threading.Thread(target=flood)
        reader.send(frame(BROADCAST, mac(2)))
        sender.receive()
        thread.start()
        try:
            for number in range(100):
                framing = (Framing.DATAGRAM, Framing.SEQPACKET)[number % 2]
                guest = plug(engine, framing)
                guest.send(frame(mac(1), mac(3)))
                if number % 3:
                    guest.close()
                engine.detach(guest.port_no)
                guest.close()
                reader.waiting()
        finally:
            stop.set()
            thread.join()
        for event in engine.take_events():
            assert not (isinstance(event, LinkClosed) and event.port_no < 3)
        assert engine.debug_counts()["ports"] == 2
        sender.close()
        reader.close()


class TestBrokenLinks:
    @pytest.mark.parametrize("framing", [Framing.SEQPACKET, Framing.DEVICE, Framing.STREAM])
    def test_end_of_file_is_reported_once_and_the_port_stays(self, engine: Engine, framing: Framing) -> None:
        sender, dead, other = plug(engine), plug(engine, framing), plug(engine)
        dead.close()
        assert closed_links(events_until(engine, LinkClosed)) == [(2, 0)]
        sender.send(frame(BROADCAST, mac(1)))
        assert other.receive() == frame(BROADCAST, mac(1))
        assert engine.snapshot().ports[2].drops == {DropReason.PEER_GONE: 1}
        assert idle_cpu_ns() < SPINNING_NS
        assert closed_links(engine.take_events()) == []
        engine.detach(2)
        assert engine.debug_counts()["ports"] == 2
        sender.close()
        other.close()

    def test_nobody_takes_the_place_of_a_guest_whose_socket_is_gone(self, engine: Engine) -> None:
        """The kernel undoes the connection when a send is refused, and then lets anybody send."""
        sender, other = plug(engine), plug(engine)
        name = b"\0" + os.urandom(16)
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
            guest.bind(b"")
            ours.bind(name)
            ours.connect(guest.getsockname())
            port_no = engine.attach(Link(ours.fileno(), Framing.DATAGRAM))
            ours.detach()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            with pytest.raises(PermissionError):
                stranger.sendto(frame(BROADCAST, mac(6)), name)
            sender.send(frame(BROADCAST, mac(1)))
            assert other.receive() == frame(BROADCAST, mac(1))
            assert engine.snapshot().ports[port_no].drops == {DropReason.PEER_GONE: 1}
            stranger.sendto(frame(BROADCAST, mac(6)), name)
        sender.send(frame(BROADCAST, mac(2)))
        assert other.receive() == frame(BROADCAST, mac(2))
        assert engine.snapshot().ports[port_no].rx_frames == 0
        assert idle_cpu_ns() < SPINNING_NS
        sender.close()
        other.close()

    def test_last_frames_before_the_end_are_delivered(self, engine: Engine) -> None:
        """A peer that goes without reading all leaves an error before its last frames, not behind them."""
        sender, dead, other = plug(engine), plug(engine, Framing.SEQPACKET), plug(engine)
        sender.send(frame(BROADCAST, mac(1)))
        assert other.receive()
        last = [frame(BROADCAST, mac(2), payload=bytes([number])) for number in range(100)]
        for each in last:
            dead.send(each)
        dead.close()
        assert other.receive_many(100) == last
        assert closed_links(events_until(engine, LinkClosed)) == [(2, 104)]
        sender.close()
        other.close()

    def test_end_of_a_full_port_counts_what_waited(self, engine: Engine) -> None:
        sender, stopped, other = plug(engine), plug(engine, Framing.SEQPACKET), plug(engine)
        sent = 0
        while engine.snapshot().queued[2] < 3 * BURST:
            sender.send(frame(BROADCAST, mac(1), 9000))
            other.receive()
            sent += 1
        delivered = engine.snapshot().ports[2].tx_frames
        stopped.close()
        events_until(engine, LinkClosed)
        snapshot = engine.snapshot()
        assert snapshot.queued[2] == 0
        assert snapshot.ports[2].drops == {DropReason.PEER_GONE: sent - delivered}
        sender.close()
        other.close()

    @pytest.mark.parametrize("how", [plug, plug_unconnected])
    def test_dead_datagram_peer_is_counted_and_nothing_else(
        self, engine: Engine, how: Callable[[Engine], GuestEnd]
    ) -> None:
        sender, dead, other = plug(engine), how(engine), plug(engine)
        engine.take_events()
        dead.close()
        for number in range(5):
            sender.send(frame(BROADCAST, mac(1), payload=bytes([number])))
            other.receive()
        assert engine.snapshot().ports[2].drops == {DropReason.PEER_GONE: 5}
        assert [type(event) for event in engine.take_events()] == [MacLearned]
        assert idle_cpu_ns() < SPINNING_NS
        sender.close()
        other.close()

    def test_dead_datagram_peer_with_a_queue_is_drained_into_the_count(self, engine: Engine) -> None:
        sender, stopped, other = plug(engine), plug_unconnected(engine), plug(engine)
        sent = unread_limit() + 100
        for _ in range(sent):
            sender.send(frame(BROADCAST, mac(1)))
            other.receive()
        assert engine.snapshot().queued[2] == 100
        stopped.close()
        wait_until(lambda: engine.snapshot().queued[2] == 0, 5, "the queue is given up")
        assert engine.snapshot().ports[2].drops == {DropReason.PEER_GONE: 100}
        sender.close()
        other.close()

    def test_late_error_of_a_send_does_not_end_a_datagram_port(self, engine: Engine) -> None:
        """A connected UDP socket hears by ICMP that nobody listens; the next read says so, once."""
        ours, theirs = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        ours.bind(("127.0.0.1", 0))
        theirs.bind(("127.0.0.1", 0))
        where = theirs.getsockname()
        ours.connect(where)
        ours.setblocking(False)
        our_name = ours.getsockname()
        theirs.close()
        sender, other = plug(engine), plug(engine)
        port_no = engine.attach(Link(ours.detach(), Framing.DATAGRAM))
        for _ in range(3):
            sender.send(frame(BROADCAST, mac(1)))
            other.receive()
        assert idle_cpu_ns() < SPINNING_NS
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
            back.bind(where)
            back.settimeout(scaled(10))
            back.sendto(frame(BROADCAST, mac(2)), our_name)
            assert sender.receive() == other.receive() == frame(BROADCAST, mac(2))
            sender.send(frame(mac(2), mac(1)))
            assert back.recv(100) == frame(mac(2), mac(1))
        assert closed_links(engine.take_events()) == []
        assert engine.snapshot().ports[port_no].rx_frames == 1
        sender.close()
        other.close()

    def test_device_that_breaks_is_closed_with_its_error(self, engine: Engine) -> None:
        ours, theirs = os.openpty()
        os.set_blocking(ours, False)
        port_no = engine.attach(Link(ours, Framing.DEVICE))
        os.close(theirs)
        assert closed_links(events_until(engine, LinkClosed)) == [(port_no, errno.EIO)]
        assert idle_cpu_ns() < SPINNING_NS


class TestEvents:
    def test_event_fd_is_readable_while_events_wait(self, make_engine: EngineMaker) -> None:
        engine = make_engine(clock=ManualClock(42))

        def readable() -> bool:
            return bool(select.select([engine.event_fd()], [], [], 0)[0])

        assert not readable()
        guests = [plug(engine), plug(engine)]
        assert readable()
        assert engine.take_events() == [PortAttached(42, 1), PortAttached(42, 2)]
        assert not readable()
        assert engine.take_events() == []
        guests[0].send(frame(BROADCAST, mac(1)))
        assert events_until(engine, MacLearned) == [MacLearned(42, mac(1), 1)]
        assert not readable()
        for guest in guests:
            guest.close()

    def test_time_comes_from_the_clock_that_was_given(self, make_engine: EngineMaker) -> None:
        clock = ManualClock(1000)
        engine = make_engine(SwitchConfig(ageing_time_ns=500), clock)
        guests = [plug(engine), plug(engine)]
        guests[0].send(frame(BROADCAST, mac(1)))
        guests[1].receive()
        clock.advance(500)
        assert engine.fdb() == [FdbEntry(mac(1), 1, 1000)]
        clock.advance(1)
        assert engine.fdb() == []
        assert engine.snapshot().at_ns == 1501
        for guest in guests:
            guest.close()

    def test_timer_as_far_ahead_as_can_be_is_no_reason_to_stop(self, make_engine: EngineMaker) -> None:
        """epoll's time limit is an int of milliseconds, 24 days: one learnt address ended the thread."""
        engine = make_engine(SwitchConfig(ageing_time_ns=MAX_AGEING_NS), ManualClock())
        guests = [plug(engine), plug(engine)]
        for number in range(3):
            guests[0].send(frame(BROADCAST, mac(number)))
            assert guests[1].receive() == frame(BROADCAST, mac(number))
        assert len(engine.fdb()) == 3
        for guest in guests:
            guest.close()


#: Run with the kind of an engine.
_DROPPED_AFTER_A_FAILURE = """
import gc, sys, threading
from support.deadline import wait_until
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac, plug, plug_unconnected, unread_limit
from umlab._clock import ManualClock
from umlab.switch.model import SwitchConfig

class Clock(ManualClock):
    broken = False
    def now_ns(self):
        if self.broken:
            raise ZeroDivisionError
        return 1

threading.excepthook = lambda _: None
clock = Clock()
engine = ENGINES[sys.argv[1]](SwitchConfig(), clock)
kind = type(engine)
engine.start()
guests = plug(engine), plug_unconnected(engine)
for size in (60, 9000):
    for _ in range(unread_limit() + 5):
        guests[0].send(frame(BROADCAST, mac(1), size))
wait_until(lambda: engine.debug_counts()["queued_frames"] == unread_limit() + 10, 10, "frames wait")
clock.broken = True
guests[0].send(frame(BROADCAST, mac(1)))
wait_until(lambda: threading.active_count() == 1, 10, "the thread dies")
del engine
gc.collect()
assert not [each for each in gc.get_objects() if type(each) is kind]
"""


class TestBug:
    @pytest.mark.parametrize("kind", sorted(ENGINES))
    def test_engine_that_died_and_was_dropped_with_frames_in_its_queues_is_freed(self, kind: str) -> None:
        done = subprocess.run(
            [sys.executable, "-X", "faulthandler", "-c", _DROPPED_AFTER_A_FAILURE, kind],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    @pytest.fixture
    def thread_reports(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[threading.ExceptHookArgs]]:
        reports: list[threading.ExceptHookArgs] = []
        monkeypatch.setattr(threading, "excepthook", reports.append)
        yield reports
        reports.clear()

    def test_bug_in_the_loop_is_printed_and_raised_by_the_next_call(
        self, monkeypatch: pytest.MonkeyPatch, thread_reports: list[threading.ExceptHookArgs]
    ) -> None:
        engine = PyEngine(SwitchConfig())
        engine.start()
        guest = plug(engine)
        engine.take_events()
        event_fd = engine.event_fd()

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(SwitchCore, "receive", broken)
        guest.send(frame(BROADCAST, mac(1)))
        assert select.select([event_fd], [], [], scaled(10))[0]
        with pytest.raises(RuntimeError, match="died of a bug") as caught:
            engine.take_events()
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
        with pytest.raises(RuntimeError, match="died of a bug"):
            engine.stop()
        engine.stop()
        assert [report.exc_type for report in thread_reports] == [ZeroDivisionError]
        with pytest.raises(ConnectionError):
            guest.send(b"")
        guest.close()
