"""Orders of events that are rare in life, made certain: the Python engine is halted within a burst.

It reads its clock once when a burst begins, with its lock held; the clock here can hold it there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import cast

import pytest

from support.deadline import scaled, wait_until
from support.guest_end import BROADCAST, GuestEnd, frame, mac, plug, plug_unconnected, unread_limit
from umlab._clock import Clock
from umlab.engine._py import PyEngine
from umlab.switch.model import SwitchConfig


class GatedClock:
    """A clock that stops the engine's thread, while shut, whenever it asks for the time."""

    def __init__(self) -> None:
        self._control = threading.get_ident()
        self._open = threading.Event()
        self._open.set()
        self._arrived = threading.Semaphore(0)

    def now_ns(self) -> int:
        if threading.current_thread().name == "umlab-engine" and not self._open.is_set():
            self._arrived.release()
            self._open.wait()
        return 0

    def shut(self) -> None:
        self._open.clear()

    def wait_for_engine(self) -> None:
        assert self._arrived.acquire(timeout=scaled(10)), "the engine has no reason to stop"

    def open(self) -> None:
        self._open.set()

    def let_one_burst_pass(self) -> None:
        """Let the halted burst go on, and halt the engine in its next."""
        self._open.set()
        self._open.clear()


@pytest.fixture
def clock() -> GatedClock:
    return GatedClock()


@pytest.fixture
def engine(clock: GatedClock) -> Iterator[PyEngine]:
    # No station is learnt, so nothing but bursts asks for the time.
    engine = PyEngine(SwitchConfig(hub=True), cast(Clock, clock))
    engine.start()
    yield engine
    clock.open()
    engine.stop()


def halt(clock: GatedClock, guest: GuestEnd) -> None:
    """Halt the engine at the beginning of a burst from a guest, whose frame is still to be read."""
    clock.shut()
    guest.send(frame(BROADCAST, mac(0), payload=b"halt"))
    clock.wait_for_engine()


def test_frames_that_wait_are_never_overtaken(clock: GatedClock, engine: PyEngine) -> None:
    sender, slow = plug(engine), plug_unconnected(engine)
    first = [frame(BROADCAST, mac(1), payload=bytes([number])) for number in range(unread_limit() + 5)]
    for each in first:
        sender.send(each)
    wait_until(lambda: engine.snapshot().queued[2] == 5, 5, "five frames wait")
    halt(clock, sender)
    received = slow.receive_many(unread_limit())  # now it could take the frame that is read next
    clock.open()
    received += slow.receive_many(6)
    assert received == [*first, frame(BROADCAST, mac(0), payload=b"halt")]
    sender.close()
    slow.close()


def test_burst_of_one_guest_ends_for_the_next(
    clock: GatedClock, engine: PyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    burst = 8  # so that the kernel holds many bursts of one guest
    monkeypatch.setattr("umlab.engine._pyframing.BURST", burst)
    flooder, other, reader = plug(engine), plug(engine), plug(engine)
    halt(clock, flooder)
    flood = [frame(BROADCAST, mac(1), payload=bytes([number])) for number in range(5 * burst)]
    for each in flood:
        flooder.send(each)
    lone = frame(BROADCAST, mac(2), payload=b"me too")
    other.send(lone)
    clock.open()
    received = reader.receive_many(1 + len(flood) + 1)
    assert received.index(lone) <= 2 * burst, "the flooder was served twice before the other once"
    assert [each for each in received[1:] if each != lone] == flood
    for guest in (flooder, other, reader):
        guest.close()


def test_control_call_comes_after_one_burst_and_what_epoll_said_before_is_void(
    clock: GatedClock, engine: PyEngine
) -> None:
    """Two descriptors are ready at once; while the first is served, the other is detached."""
    guests = {guest.port_no: guest for guest in (plug(engine), plug(engine), plug(engine))}
    halt(clock, guests[3])
    guests[1].send(frame(BROADCAST, mac(1)))
    guests[2].send(frame(BROADCAST, mac(2)))
    clock.let_one_burst_pass()
    clock.wait_for_engine()  # within the burst of 1, which was ready first
    call = threading.Thread(target=engine.detach, args=(2,))
    call.start()
    wait_until(engine._turn.locked, 5, "the call waits for the engine")
    clock.open()
    call.join()
    late = plug(engine)
    assert late.port_no == 2
    late.send(frame(BROADCAST, mac(4)))
    assert guests[3].receive_many(2) == [frame(BROADCAST, mac(1)), frame(BROADCAST, mac(4))]
    for guest in (*guests.values(), late):
        guest.close()
