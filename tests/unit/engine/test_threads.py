"""Where an engine's thread, its control calls and its events meet, nothing locks up or is lost."""

from __future__ import annotations

import contextlib
import gc
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until
from support.engines import ENGINES
from support.exchange import background, running_exchange
from support.guest_end import BROADCAST, GuestEnd, frame, mac, plug, plug_unconnected, traffic_of
from umlab.engine.contract import Engine
from umlab.switch.events import Event, EventsLost, MacLearned
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SwitchConfig

EngineMaker = Callable[..., Engine]
OWN = mac(0xF00D)
TO_ITSELF = frame(OWN, OWN)
TESTS = Path(__file__).parents[2]


@contextlib.contextmanager
def plugged(*guests: GuestEnd) -> Iterator[tuple[GuestEnd, ...]]:
    """Close guests in the end."""
    try:
        yield guests
    finally:
        for guest in guests:
            guest.close()


def four_guests(engine: Engine) -> tuple[GuestEnd, GuestEnd, GuestEnd, GuestEnd]:
    """Return a quiet guest, two as UML attaches them, and one that burdens the switch and is known."""
    guests = plug(engine), plug_unconnected(engine), plug_unconnected(engine), plug(engine)
    guests[3].send(TO_ITSELF)
    return guests


def storm(guest: GuestEnd, count: int) -> None:
    """Send so many frames, each of another station, numbered from 0, to the guest's own port."""
    for number in range(count):
        guest.send(OWN + mac(number) + b"\x88\xb5")


def accounted(events: list[Event]) -> int:
    """Return how many stations of a storm were reported or are counted as lost."""
    return sum(
        event.count if isinstance(event, EventsLost) else isinstance(event, MacLearned) and event.mac != OWN
        for event in events
    )


def assert_complete(events: list[Event], count: int) -> None:
    """Assert that stations 0 to ``count`` - 1 were reported in order or are counted as lost."""
    expected = 0
    for event in events:
        if isinstance(event, EventsLost):
            assert event.count > 0
            expected += event.count
        elif isinstance(event, MacLearned) and event.mac != OWN:
            assert event.mac == mac(expected)
            expected += 1
    assert expected == count


class TestEvents:
    def test_lost_events_are_counted_exactly_where_they_are_missing(self, engine: Engine) -> None:
        """The reader takes them seldom: whatever it misses lies between what it gets."""
        count = 30_000
        events: list[Event] = []
        with plugged(plug(engine)) as (guest,):
            guest.send(OWN + OWN + b"\x88\xb5")
            for seen in range(count // 5, count + 1, count // 5):
                for number in range(seen - count // 5, seen):
                    guest.send(OWN + mac(number) + b"\x88\xb5")
                wait_until(lambda: traffic_of(engine, 1) > seen, 20, "a part is counted")  # noqa: B023
                events += engine.take_events()
        assert_complete(events, count)
        assert sum(isinstance(event, EventsLost) for event in events) == 5

    def test_reader_that_is_woken_by_the_descriptor_misses_nothing_unaware(self, engine: Engine) -> None:
        count = 30_000
        events: list[Event] = []
        with plugged(plug(engine)) as (guest,):
            guest.send(OWN + OWN + b"\x88\xb5")
            sender = threading.Thread(target=storm, args=(guest, count))
            sender.start()
            while accounted(events) < count:
                assert select.select([engine.event_fd()], [], [], scaled(10))[0], "it was not woken"
                events += engine.take_events()
            sender.join()
            # It may have been woken once more for what it took already.
            assert engine.take_events() == []
            assert not select.select([engine.event_fd()], [], [], 0)[0]
        assert_complete(events, count)


class TestControl:
    def test_fdb_is_read_whole_while_frames_flow(self, engine: Engine) -> None:
        known = {mac(number) for number in range(50_000)}
        quiet, left, right, flooder = guests = four_guests(engine)
        now_ns = engine.snapshot().at_ns
        engine.restore_fdb([FdbEntry(address, quiet.port_no, now_ns) for address in known])
        with plugged(*guests), running_exchange(left, right), background(lambda: flooder.send(TO_ITSELF)):
            for _ in range(10):
                assert {each.mac for each in engine.fdb() if each.port_no == quiet.port_no} == known

    def test_calls_without_a_pause_while_frames_flow(self, engine: Engine) -> None:
        """No frame of the exchange is lost or overtaken."""
        _, left, right, flooder = guests = four_guests(engine)
        with (
            plugged(*guests),
            running_exchange(left, right) as exchange,
            background(lambda: flooder.send(TO_ITSELF)),
        ):
            goal = exchange.rounds + 30
            while exchange.rounds < goal:
                self._call_everything(engine, flooder.port_no)
            snapshot = engine.snapshot()
            assert not any(snapshot.ports[guest.port_no].drops for guest in (left, right))

    def test_calls_of_two_threads_at_once(self, engine: Engine) -> None:
        """The contract knows one control thread; a second is an error that must do no harm."""
        _, left, right, flooder = guests = four_guests(engine)
        with plugged(*guests), running_exchange(left, right) as exchange:
            goal = exchange.rounds + 30
            with (
                background(lambda: self._call_everything(engine, flooder.port_no)),
                background(lambda: self._call_everything(engine, flooder.port_no)),
                background(lambda: flooder.send(TO_ITSELF)),
            ):
                wait_until(lambda: exchange.rounds > goal, 30, "the others talk")
        assert engine.debug_counts()["ports"] == 4

    def _call_everything(self, engine: Engine, flooder: int) -> None:
        with plugged(plug(engine), plug_unconnected(engine)) as comers:
            engine.configure(engine.config)
            engine.flush_fdb(flooder)
            engine.restore_fdb([FdbEntry(mac(1 << 30), comers[0].port_no, engine.snapshot().at_ns)])
            engine.take_events()
            snapshot = engine.snapshot()
            assert {guest.port_no for guest in comers} <= set(snapshot.ports)
            assert set(snapshot.queued) == set(snapshot.ports)
            assert engine.debug_counts()["threads"] == 1
            for guest in comers:
                engine.detach(guest.port_no)


def test_engines_of_one_process_do_not_know_of_each_other(make_engine: EngineMaker) -> None:
    engines = [make_engine(SwitchConfig(first_port_no=number)) for number in (1, 10, 20, 30)]
    with contextlib.ExitStack() as stack:
        exchanges = []
        for engine in engines:
            left, right = stack.enter_context(plugged(plug(engine), plug_unconnected(engine)))
            exchanges.append(stack.enter_context(running_exchange(left, right)))
        wait_until(lambda: all(each.rounds > 20 for each in exchanges), 30, "all talk")
        for engine in engines:
            first = engine.config.first_port_no
            assert list(engine.snapshot().ports) == [first, first + 1]
            assert [entry.port_no for entry in engine.fdb()][:2] in ([first, first + 1], [first + 1, first])
    engines[0].stop()
    with plugged(plug(engines[1]), plug(engines[1])) as (one, other):
        one.send(frame(BROADCAST, OWN))
        assert other.receive() == frame(BROADCAST, OWN)


@pytest.mark.parametrize("kind", sorted(ENGINES))
class TestEnd:
    def test_engine_that_is_dropped_leaves_nothing(self, kind: str) -> None:
        """Never started, held and stopped ones; the fixtures see what would be left behind."""
        for begin in ("never", "held", "run"):
            engine = ENGINES[kind](SwitchConfig(), None)
            if begin != "never":
                engine.start(held=begin == "held")
                plug(engine).close()
            engine.stop()
            engine.stop()
            del engine
        gc.collect()

    def test_process_that_ends_with_a_running_engine_ends(self, kind: str) -> None:
        """The thread is in the middle of a flood when the interpreter goes."""
        code = f"""
import threading
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac, plug
from umlab.switch.model import SwitchConfig

engine = ENGINES[{kind!r}](SwitchConfig(), None)
engine.start()
guests = [plug(engine) for _ in range(4)]

def flood():
    while True:
        guests[0].send(frame(BROADCAST, mac(1)))

threading.Thread(target=flood, daemon=True).start()
while not engine.snapshot().queued[2]:
    pass
print("flooded")
"""
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=TESTS, capture_output=True, text=True, timeout=scaled(30)
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "flooded\n", "")
