"""Who has a turn when, seen from outside; test_interleaving.py looks into the Python engine as well."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from support.engines import ENGINES
from support.guest_end import BROADCAST, GuestEnd, frame, mac, plug, plug_unconnected, traffic_of
from umlab.engine.contract import Engine
from umlab.switch.model import SwitchConfig

EngineMaker = Callable[..., Engine]
#: Frames that each engine reads from one guest before the next has its turn.
BURST = 64
#: So many small frames fit a socket that nobody reads.
FULL = 250


def numbered(source: int, count: int) -> list[bytes]:
    return [frame(BROADCAST, mac(source), payload=number.to_bytes(4, "big")) for number in range(count)]


def fill(guest: GuestEnd, frames: list[bytes]) -> None:
    """Send to an engine that does not read."""
    timeout = guest.sock.gettimeout()
    guest.sock.setblocking(False)
    for each in frames:
        guest.send(each)
    guest.sock.settimeout(timeout)


def test_frames_that_wait_are_never_overtaken(engine: Engine) -> None:
    """The reader is nearly always behind: frames wait in its socket and its queue while others come."""
    rng = random.Random(1)
    sender, slow = plug(engine), plug_unconnected(engine)
    frames = numbered(1, 5000)
    sent = received = 0
    while received < len(frames):
        for each in frames[sent : sent + rng.randint(0, min(60, 400 - (sent - received)))]:
            sender.send(each)
            sent += 1
        for _ in range(rng.randint(0, min(60, sent - received))):
            assert slow.receive() == frames[received]
            received += 1
    assert not engine.snapshot().ports[slow.port_no].drops
    for guest in (sender, slow):
        guest.close()


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_burst_of_one_guest_ends_for_the_next(kind: str) -> None:
    engine = ENGINES[kind](SwitchConfig(), None)
    engine.start(held=True)
    flooder, other, reader = guests = plug(engine), plug(engine), plug(engine)
    flood, lone = numbered(1, FULL), frame(BROADCAST, mac(2), payload=b"me too")
    fill(flooder, flood)
    fill(other, [lone])
    engine.release()
    received = reader.receive_many(FULL + 1)
    assert received.index(lone) <= 2 * BURST, "the flooder was served twice before the other once"
    assert [each for each in received if each != lone] == flood
    engine.stop()
    for guest in guests:
        guest.close()


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_control_call_has_its_turn_among_many_ports_that_are_ready(kind: str) -> None:
    """If it came after each of them had its burst, none of these engines could have done less."""
    ports = 60
    done = []
    for _ in range(5):
        engine = ENGINES[kind](SwitchConfig(), None)
        engine.start(held=True)
        guests = [plug(engine) for _ in range(ports)]
        for guest in guests:
            fill(guest, numbered(guest.port_no, 2 * BURST))  # to all others, which takes a while
        engine.release()
        engine.flush_fdb(guests[0].port_no)
        ports_then = engine.snapshot().ports.values()
        done.append(sum(port.rx_frames for port in ports_then))
        engine.stop()
        for guest in guests:
            guest.close()
    assert min(done) < ports * BURST // 2


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_port_that_is_detached_while_its_frames_wait_is_not_taken_for_the_next(kind: str) -> None:
    """All guests' sockets are full when one of them is detached and its number goes to another."""
    cut_off = 0
    for _ in range(20):
        engine = ENGINES[kind](SwitchConfig(egress_queue_depth=10_000), None)
        engine.start(held=True)
        reader, *flooders = guests = [plug(engine) for _ in range(6)]
        floods = {guest.port_no: numbered(guest.port_no, FULL) for guest in flooders}
        for guest in flooders:
            fill(guest, floods[guest.port_no])
        engine.release()
        detached = flooders[-1]
        engine.detach(detached.port_no)
        late = plug(engine)
        assert late.port_no == detached.port_no
        late.send(words := frame(BROADCAST, mac(99), payload=b"late"))
        received = [reader.receive()]
        expected = FULL * (len(flooders) - 1)
        while words not in received or len(of(received, flooders[:-1])) < expected:
            received.append(reader.receive())
        assert traffic_of(engine, late.port_no) == 1
        before = of(received, [detached])
        assert before == floods[detached.port_no][: len(before)]
        cut_off += len(before) < FULL
        for guest in flooders[:-1]:
            assert of(received, [guest]) == floods[guest.port_no]
        engine.stop()
        for guest in (*guests, late):
            guest.close()
    assert cut_off, "control waits until nothing is left to read"


def of(frames: list[bytes], guests: list[GuestEnd]) -> list[bytes]:
    """Return the frames of some guests."""
    sources = {mac(guest.port_no) for guest in guests}
    return [each for each in frames if each[6:12] in sources]
