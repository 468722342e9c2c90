"""Bursts of several guests at once, which wait for the engine when it begins.

The guests' turns are the engine's own affair; what each receiver gets of each sender is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from support.deadline import wait_until
from support.engines import ENGINES
from support.guest_end import BROADCAST, PLUGGED, GuestEnd, frame, mac, plug, plug_unconnected, unread_limit
from umlab._clock import ManualClock
from umlab.engine.contract import Engine
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SwitchConfig

FRAMINGS = PLUGGED * 2
#: So many small frames fit a socket whose other end is not read.
FRAMES = 150


def held_engine(kind: str, config: SwitchConfig) -> tuple[Engine, list[GuestEnd]]:
    """Return an engine that holds still, with eight guests whose addresses it knows."""
    engine = ENGINES[kind](config, ManualClock())
    engine.start(held=True)
    guests = [plug(engine, framing) for framing in FRAMINGS]
    engine.restore_fdb([FdbEntry(mac(guest.port_no), guest.port_no, 0) for guest in guests])
    return engine, guests


def send_all(guests: list[GuestEnd], frames: dict[int, list[bytes]]) -> None:
    """Let each guest send its frames to an engine that reads none of them yet."""
    for guest in guests:
        timeout = guest.sock.gettimeout()
        guest.sock.setblocking(False)
        for each in frames[guest.port_no]:
            guest.send(each)
        guest.sock.settimeout(timeout)


def of_sender(frames: list[bytes], port_no: int) -> list[bytes]:
    return [each for each in frames if each[6:12] == mac(port_no)]


@pytest.mark.parametrize("kind", sorted(ENGINES))
@pytest.mark.parametrize("seed", range(4))
def test_each_receiver_gets_all_of_each_sender_in_order(
    kind: str, seed: int, count_scenario: Callable[[str], None]
) -> None:
    rng = random.Random(seed)
    engine, guests = held_engine(kind, SwitchConfig(egress_queue_depth=1000))
    numbers = [guest.port_no for guest in guests]
    frames = {
        sender: [
            frame(
                rng.choice([BROADCAST, *(mac(other) for other in numbers if other != sender)]),
                mac(sender),
                payload=number.to_bytes(2, "big"),
            )
            for number in range(FRAMES)
        ]
        for sender in numbers
    }
    send_all(guests, frames)
    engine.release()
    wanted = {
        receiver: [
            each
            for sender in numbers
            if sender != receiver
            for each in frames[sender]
            if each[:6] in (BROADCAST, mac(receiver))
        ]
        for receiver in numbers
    }
    for guest in guests:
        received = guest.receive_many(len(wanted[guest.port_no]))
        for sender in numbers:
            assert of_sender(received, sender) == of_sender(wanted[guest.port_no], sender)
    sizes = {receiver: sum(map(len, each)) for receiver, each in wanted.items()}
    assert engine.snapshot().ports == {
        number: PortCounters(FRAMES, FRAMES * 60, len(wanted[number]), sizes[number]) for number in numbers
    }
    assert all(guest.waiting() == [] for guest in guests)
    engine.stop()
    for guest in guests:
        guest.close()
    count_scenario(kind)


@pytest.mark.parametrize("kind", sorted(ENGINES))
@pytest.mark.parametrize("depth", [1, 2, 8])
def test_what_a_stopped_guest_loses_is_counted_and_what_it_keeps_is_in_order(
    kind: str, depth: int, count_scenario: Callable[[str], None]
) -> None:
    engine, guests = held_engine(kind, SwitchConfig(egress_queue_depth=depth))
    stopped = plug_unconnected(engine)
    engine.restore_fdb([FdbEntry(mac(stopped.port_no), stopped.port_no, 0)])
    frames = {
        guest.port_no: [
            frame(mac(stopped.port_no), mac(guest.port_no), payload=number.to_bytes(2, "big"))
            for number in range(FRAMES)
        ]
        for guest in guests
    }
    send_all(guests, frames)
    engine.release()
    kept, total = unread_limit() + depth, len(guests) * FRAMES

    def drops() -> int:
        return engine.snapshot().ports[stopped.port_no].drops.get(DropReason.TAIL, 0)

    wait_until(lambda: drops() >= total - kept, 10, "all frames are dealt with")
    snapshot = engine.snapshot()
    assert snapshot.ports[stopped.port_no] == PortCounters(
        tx_frames=unread_limit(), tx_bytes=unread_limit() * 60, drops={DropReason.TAIL: total - kept}
    )
    assert snapshot.queued[stopped.port_no] == depth
    received = stopped.receive_many(kept)
    for number, sent in frames.items():
        positions = [sent.index(each) for each in of_sender(received, number)]
        assert positions == sorted(set(positions))
    assert stopped.waiting() == []
    assert engine.snapshot().ports[stopped.port_no].tx_frames == kept
    engine.stop()
    for guest in (*guests, stopped):
        guest.close()
    count_scenario(kind)
