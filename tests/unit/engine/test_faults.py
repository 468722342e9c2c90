"""Guests that fail or mean harm: two others lose nothing meanwhile, whatever the engine."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest

from support.deadline import scaled, wait_until
from support.exchange import Exchange, background, running_exchange
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    frame,
    mac,
    plug,
    plug_headed,
    plug_shared,
    plug_unconnected,
    traffic_of,
    unread_limit,
)
from umlab.engine.contract import Engine
from umlab.switch.counters import DropReason
from umlab.switch.events import FdbFull, LinkClosed
from umlab.switch.model import Framing, SwitchConfig

Keep = Callable[[GuestEnd], GuestEnd]
Plug = Callable[[Engine], GuestEnd]
Trio = tuple[GuestEnd, GuestEnd, GuestEnd]
#: The address of the guest that the fault is about.
VICTIM = mac(0xCCCCCC)
FLOODER = mac(0xF00D)


@pytest.fixture
def shared() -> Iterator[socket.socket]:
    """Yield the shared receiver of a daemon transport."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")
        yield sock


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Yield a function that takes note of a guest, to be closed in the end, and returns it."""
    guests: list[GuestEnd] = []

    def take(guest: GuestEnd) -> GuestEnd:
        guests.append(guest)
        return guest

    yield take
    for guest in guests:
        guest.close()


@pytest.fixture(params=["connected", "unconnected", "seqpacket", "device", "shared", "stream", "headed"])
def plug_any(request: pytest.FixtureRequest, shared: socket.socket, keep: Keep) -> Plug:
    """Return each way to attach a guest."""
    if request.param == "shared":
        return lambda engine: keep(plug_shared(engine, shared))
    if request.param == "unconnected":
        return lambda engine: keep(plug_unconnected(engine))
    if request.param == "headed":
        return lambda engine: keep(plug_headed(engine))
    framing = Framing.DATAGRAM if request.param == "connected" else Framing(request.param)
    return lambda engine: keep(plug(engine, framing))


@pytest.fixture
def trio(engine: Engine, keep: Keep) -> Trio:
    """Return two guests as UML attaches them, and a third that burdens the switch."""
    return keep(plug_unconnected(engine)), keep(plug_unconnected(engine)), keep(plug(engine))


class Flooder:
    """Sends numbered frames to the victim as fast as it can.

    Args:
        guest: Who sends.
        size: Bytes of a frame.
    """

    def __init__(self, guest: GuestEnd, size: int = 60) -> None:
        self._guest = guest
        self._size = size
        self.sent: list[bytes] = []

    def send(self) -> None:
        """Send one frame."""
        number = len(self.sent).to_bytes(4, "big")
        self.sent.append(frame(VICTIM, FLOODER, self._size, number))
        self._guest.send(self.sent[-1])

    def send_between(self, exchange: Exchange) -> None:
        """Send fifty frames, and wait for the two that talk: while no victim is known, they get them too."""
        rounds = exchange.rounds
        for _ in range(50):
            self.send()
        wait_until(lambda: exchange.rounds > rounds, 10, "the others talk")


def introduced(engine: Engine, guest: GuestEnd) -> GuestEnd:
    """Let the switch learn the victim's address on a guest's port."""
    guest.send(frame(VICTIM, VICTIM))
    wait_until(lambda: traffic_of(engine, guest.port_no), 10, "the victim is known")
    return guest


def wait_for_queue(engine: Engine, guest: GuestEnd) -> None:
    wait_until(lambda: engine.snapshot().queued[guest.port_no] > 0, 10, "frames queue up")


def wait_for_drops(engine: Engine, guest: GuestEnd, reason: DropReason) -> None:
    wait_until(lambda: engine.snapshot().ports[guest.port_no].drops.get(reason), 10, f"drops: {reason}")


def test_guest_that_stops_reading(engine: Engine, trio: Trio, plug_any: Plug) -> None:
    left, right, flooder = trio
    victim = introduced(engine, plug_any(engine))
    flood = Flooder(flooder)
    with running_exchange(left, right) as exchange, background(flood.send):
        goal = exchange.rounds + 100
        wait_until(lambda: exchange.rounds > goal, 20, "the others talk")
        wait_for_drops(engine, victim, DropReason.TAIL)
    snapshot = engine.snapshot()
    assert snapshot.queued[victim.port_no] == engine.config.egress_queue_depth
    assert not any(snapshot.ports[guest.port_no].drops for guest in (left, right))
    # Not one of the frames that it was promised is lost.
    promised = snapshot.ports[victim.port_no].tx_frames + engine.config.egress_queue_depth
    received = [each for each in victim.receive_many(promised) if each[6:12] == FLOODER]
    assert received == flood.sent[: len(received)]
    assert promised - len(received) <= 2, "more than what the two said to all before they talked"
    assert victim.waiting() == []


def test_many_guests_that_stop_reading_long_frames(engine: Engine, trio: Trio, keep: Keep) -> None:
    """Their queues want more large buffers than the native engine has, of which some are left for others."""
    left, right, flooder = trio
    stopped = [keep(plug_unconnected(engine)) for _ in range(12)]
    for guest in stopped:
        guest.send(frame(mac(guest.port_no), mac(guest.port_no)))
    wait_until(lambda: len(engine.fdb()) == len(stopped), 10, "all are known")
    count = unread_limit() + engine.config.egress_queue_depth
    with running_exchange(left, right) as exchange:
        for number in range(count):
            for guest in stopped:
                flooder.send(frame(mac(guest.port_no), FLOODER, 9000, number.to_bytes(4, "big")))
        rounds = exchange.rounds
        wait_until(lambda: exchange.rounds > rounds + 10, 20, "the others talk")
        total = len(stopped) * count
        wait_until(lambda: traffic_of(engine, flooder.port_no) == total, 10, "all frames are dealt with")
    snapshot = engine.snapshot()
    assert not any(snapshot.ports[guest.port_no].drops for guest in (left, right))
    for guest in stopped:
        port = snapshot.ports[guest.port_no]
        promised = port.tx_frames + snapshot.queued[guest.port_no]
        # None is left with a small part of what its queue may hold, and what it has is in order.
        assert promised >= count // 4
        frames = [each for each in guest.receive_many(promised) if each[6:12] == FLOODER]
        numbers = [int.from_bytes(each[14:18], "big") for each in frames]
        assert numbers == sorted(set(numbers))


def test_guest_that_reads_while_others_hold_all_large_buffers(engine: Engine, trio: Trio, keep: Keep) -> None:
    """Each of them in turn takes what it can get, until there is none left for a queue."""
    reader, sender, flooder = trio
    reader.send(frame(VICTIM, VICTIM))
    stopped = [keep(plug_unconnected(engine)) for _ in range(20)]
    count = unread_limit() + engine.config.egress_queue_depth
    for guest in stopped:
        guest.send(frame(mac(guest.port_no), mac(guest.port_no)))
    wait_until(lambda: len(engine.fdb()) == len(stopped) + 1, 10, "all are known")
    for guest in stopped:
        for number in range(count):
            flooder.send(frame(mac(guest.port_no), FLOODER, 9000, number.to_bytes(4, "big")))
    total = len(stopped) * count
    wait_until(lambda: traffic_of(engine, flooder.port_no) == total, 20, "all frames are dealt with")
    window = unread_limit() // 2
    for number in range(100):
        words = [frame(VICTIM, mac(1), 9000, bytes([number, place])) for place in range(window)]
        for each in words:
            sender.send(each)
        assert reader.receive_many(window) == words
    assert engine.snapshot().ports[reader.port_no].drops.get(DropReason.TAIL) is None


def test_guests_that_die_in_mid_burst(engine: Engine, trio: Trio, plug_any: Plug) -> None:
    left, right, flooder = trio
    flood = Flooder(flooder, size=2000)
    with running_exchange(left, right) as exchange, background(lambda: flood.send_between(exchange)):
        for _ in range(15):
            victim = introduced(engine, plug_any(engine))
            wait_for_queue(engine, victim)
            victim.close()
            wait_for_drops(engine, victim, DropReason.PEER_GONE)
            engine.detach(victim.port_no)
    assert not any(engine.snapshot().ports[guest.port_no].drops for guest in (left, right))
    assert engine.debug_counts()["ports"] == 3


def test_guests_that_are_detached_under_load(engine: Engine, trio: Trio, plug_any: Plug) -> None:
    left, right, flooder = trio
    flood = Flooder(flooder, size=2000)
    with running_exchange(left, right) as exchange, background(lambda: flood.send_between(exchange)):
        for number in range(30):
            victim = introduced(engine, plug_any(engine))
            if number % 3 == 0:
                wait_for_queue(engine, victim)
            engine.detach(victim.port_no)
            victim.close()
    closed = [event for event in engine.take_events() if isinstance(event, LinkClosed)]
    assert {event.port_no for event in closed} & {1, 2, 3} == set()
    assert not any(engine.snapshot().ports[guest.port_no].drops for guest in (left, right))
    assert engine.debug_counts()["ports"] == 3


def test_guests_that_come_talk_and_go_under_load(
    engine: Engine, trio: Trio, plug_any: Plug, keep: Keep
) -> None:
    """What one guest sends before it goes is forwarded as of its port, never as of the next one's."""
    left, right, flooder = trio
    listener = introduced(engine, keep(plug(engine)))
    flooder.send(to_itself := frame(FLOODER, FLOODER))
    with running_exchange(left, right), background(lambda: flooder.send(to_itself)):
        for number in range(40):
            guest = plug_any(engine)
            words = frame(VICTIM, mac(number), payload=number.to_bytes(2, "big"))
            guest.send(words)
            while listener.receive() != words:
                pass
            assert [entry.mac for entry in engine.fdb() if entry.port_no == guest.port_no] == [mac(number)]
            if number % 2:
                guest.close()
            engine.detach(guest.port_no)
            guest.close()
    assert engine.debug_counts()["ports"] == 4


def test_flood_of_random_sources(engine: Engine, trio: Trio) -> None:
    engine.configure(SwitchConfig(fdb_capacity=2000))
    left, right, flooder = trio
    flooder.send(frame(FLOODER, FLOODER))
    sent = 1

    def spoof() -> None:
        nonlocal sent
        flooder.send(FLOODER + b"\x02" + os.urandom(5) + b"\x88\xb5")
        sent += 1

    with running_exchange(left, right) as exchange, background(spoof):
        goal = exchange.rounds + 100
        wait_until(lambda: exchange.rounds > goal and sent > 20_000, 60, "a flood, and the others talk")
        engine.take_events()
    wait_until(lambda: traffic_of(engine, flooder.port_no) == sent, 20, "the whole flood is counted")
    snapshot = engine.snapshot()
    assert snapshot.fdb_entries == len(engine.fdb()) == 2000
    assert snapshot.counters.learned == 2000
    assert snapshot.counters.learn_refused == sent - 2000 + 2
    assert not any(snapshot.ports[guest.port_no].drops for guest in (left, right))
    assert [event for event in engine.take_events() if isinstance(event, FdbFull)] == []


def test_stranger_on_the_shared_socket(engine: Engine, shared: socket.socket, keep: Keep) -> None:
    left, right = keep(plug_shared(engine, shared)), keep(plug_unconnected(engine))
    sent = 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.bind("")
        stranger.settimeout(scaled(10))
        stranger.connect(shared.getsockname())

        def intrude() -> None:
            nonlocal sent
            stranger.send(frame(BROADCAST, VICTIM, 14 + sent % 3000))
            sent += 1

        with running_exchange(left, right) as exchange, background(intrude):
            goal = exchange.rounds + 100
            wait_until(lambda: exchange.rounds > goal and sent > 1000, 20, "both go on")
    wait_until(lambda: engine.snapshot().counters.unknown_sender == sent, 10, "every intrusion is counted")
    assert VICTIM not in {entry.mac for entry in engine.fdb()}
    assert left.waiting() == right.waiting() == []


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Allow this process 4096 descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this user may open {hard} descriptors only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_ports(engine: Engine, many_descriptors: None, keep: Keep) -> None:
    """Every other one has stopped reading: a flood waits for those, each frame once however many ports."""
    guests = [keep(plug(engine) if number % 2 else plug_unconnected(engine)) for number in range(1000)]
    assert [guest.port_no for guest in guests] == list(range(1, 1001))
    sender, *others = guests
    count = unread_limit() + 5
    sent = [frame(BROADCAST, mac(1), 1000, number.to_bytes(2, "big")) for number in range(count)]
    for each in sent:
        sender.send(each)
    readers, stopped = others[::2], others[1::2]
    for guest in readers:
        assert guest.receive_many(count) == sent
    wait_until(lambda: engine.debug_counts()["queued_frames"] == 5 * len(stopped), 10, "frames wait")
    snapshot = engine.snapshot()
    assert all(snapshot.queued[guest.port_no] == 5 for guest in stopped)
    for guest in stopped:
        assert guest.receive_many(count) == sent
    wait_until(lambda: engine.debug_counts()["queued_frames"] == 0, 10, "no frame waits")
    # And to one of them only.
    last = guests[-1]
    last.send(frame(mac(1), mac(1000)))
    assert sender.receive() == frame(mac(1), mac(1000))
    sender.send(frame(mac(1000), mac(1)))
    assert last.receive() == frame(mac(1000), mac(1))
    assert [guest.port_no for guest in guests if guest.waiting()] == []
    for guest in guests:
        engine.detach(guest.port_no)
        guest.close()
    assert engine.debug_counts()["ports"] == 0
