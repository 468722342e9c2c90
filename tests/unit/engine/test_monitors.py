"""Ports that are sent every frame that the switch forwards, and nothing else."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from support.deadline import scaled, wait_until
from support.exchange import running_exchange
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    StreamEnd,
    events_until,
    frame,
    idle_cpu_ns,
    is_open,
    mac,
    plug,
    plug_monitor,
    plug_unconnected,
    traffic_of,
    unread_limit,
)
from umlab.engine.contract import Engine
from umlab.errors import SwitchError
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import LinkClosed
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import Framing, Link, SwitchConfig

EngineMaker = Callable[..., Engine]
Keep = Callable[[GuestEnd], GuestEnd]


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


def plug_limited_monitor(engine: Engine) -> GuestEnd:
    """Attach a monitor that has room for a known number of frames."""
    theirs = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.bind("")
    theirs.settimeout(scaled(10))
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    ours.connect(theirs.getsockname())
    return GuestEnd(theirs, engine.attach(Link(ours.detach(), Framing.DATAGRAM, monitor=True)))


def plug_monitor_on(engine: Engine, kind: int, framing: Framing) -> GuestEnd:
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    theirs.settimeout(scaled(10))
    port_no = engine.attach(Link(ours.detach(), framing, monitor=True))
    return (StreamEnd if framing is Framing.STREAM else GuestEnd)(theirs, port_no)


def learn(guest: GuestEnd, others: list[GuestEnd], address: bytes) -> None:
    hello = frame(BROADCAST, address)
    guest.send(hello)
    for other in others:
        assert other.receive() == hello


@pytest.mark.parametrize("first", [True, False], ids=["lowest number", "highest number"])
@pytest.mark.parametrize("monitors", [1, 2, 3])
def test_each_gets_every_frame_once_whomever_it_is_for(
    engine: Engine, keep: Keep, first: bool, monitors: int
) -> None:
    watching = [keep(plug_monitor(engine)) for _ in range(monitors)] if first else []
    left, right, other = (keep(plug(engine)) for _ in range(3))
    watching = watching or [keep(plug_monitor(engine)) for _ in range(monitors)]
    learn(left, [right, other, *watching], mac(1))
    unicast = frame(mac(1), mac(2))
    right.send(unicast)
    for guest in (left, *watching):
        assert guest.receive() == unicast
    unknown = frame(mac(9), mac(2))
    right.send(unknown)
    for guest in (left, other, *watching):
        assert guest.receive() == unknown
    assert [guest.waiting() for guest in (left, right, other, *watching)] == [[]] * (3 + monitors)
    assert {entry.mac: entry.port_no for entry in engine.fdb()} == {
        mac(1): left.port_no,
        mac(2): right.port_no,
    }
    wait_until(
        lambda: all(
            engine.snapshot().ports[each.port_no] == PortCounters(tx_frames=3, tx_bytes=180)
            for each in watching
        ),
        10,
        "the frames are counted",
    )


def test_hub_sends_it_each_frame_once_as_well(make_engine: EngineMaker, keep: Keep) -> None:
    engine = make_engine(SwitchConfig(hub=True))
    left, monitor, right = keep(plug(engine)), keep(plug_monitor(engine)), keep(plug(engine))
    for source, destination in ((mac(1), mac(2)), (mac(2), mac(1))):
        left.send(each := frame(destination, source))
        assert right.receive() == monitor.receive() == each
    assert monitor.waiting() == []


def test_what_is_not_forwarded_does_not_come(make_engine: EngineMaker, keep: Keep) -> None:
    engine = make_engine(SwitchConfig(max_frame=1518))
    left, right, monitor = keep(plug(engine)), keep(plug(engine)), keep(plug_monitor(engine))
    learn(left, [right, monitor], mac(1))
    for bad in (b"", bytes(13), frame(BROADCAST, mac(1), 1519), frame(mac(1), mac(1))):
        left.send(bad)
    left.send(last := frame(BROADCAST, mac(1), 1518))
    assert right.receive() == monitor.receive() == last
    assert engine.snapshot().ports[left.port_no].drops == {
        DropReason.RUNT: 2,
        DropReason.OVERSIZE: 1,
        DropReason.SAME_PORT: 1,
    }


def test_it_is_told_what_no_other_port_is_there_for(engine: Engine, keep: Keep) -> None:
    alone, monitor = keep(plug(engine)), keep(plug_monitor(engine))
    for each in (frame(BROADCAST, mac(1)), frame(mac(7), mac(1))):
        alone.send(each)
        assert monitor.receive() == each
    assert alone.waiting() == []
    assert engine.snapshot().ports[alone.port_no] == PortCounters(2, 120)


def test_nothing_that_it_sends_comes_in(engine: Engine, keep: Keep) -> None:
    left, right, monitor = keep(plug(engine)), keep(plug(engine)), keep(plug_monitor(engine))
    for _ in range(20):
        monitor.send(frame(BROADCAST, mac(66)))
    assert idle_cpu_ns() < 50_000_000
    learn(left, [right, monitor], mac(1))
    assert engine.snapshot().ports[monitor.port_no] == PortCounters(tx_frames=1, tx_bytes=60)
    assert [entry.mac for entry in engine.fdb()] == [mac(1)]
    assert right.waiting() == left.waiting() == []


def test_no_address_is_taken_over_for_it(engine: Engine, keep: Keep) -> None:
    left, right, monitor = keep(plug(engine)), keep(plug(engine)), keep(plug_monitor(engine))
    now_ns = engine.snapshot().at_ns
    engine.restore_fdb([FdbEntry(mac(7), monitor.port_no, now_ns), FdbEntry(mac(1), left.port_no, now_ns)])
    assert [entry.mac for entry in engine.fdb()] == [mac(1)]
    right.send(unknown := frame(mac(7), mac(2)))
    assert left.receive() == monitor.receive() == unknown
    assert monitor.waiting() == []


def test_full_one_loses_its_own_frames_only(make_engine: EngineMaker, keep: Keep) -> None:
    depth, extra = 20, 30
    engine = make_engine(SwitchConfig(egress_queue_depth=depth))
    left, right = keep(plug(engine)), keep(plug(engine))
    full, other = keep(plug_limited_monitor(engine)), keep(plug_monitor(engine))
    learn(right, [left, other], mac(2))
    assert full.receive()
    kept = unread_limit() + depth
    sent = [frame(mac(2), mac(1), payload=bytes([number])) for number in range(kept + extra)]
    for each in sent:
        left.send(each)
        assert right.receive() == other.receive() == each
    wait_until(lambda: traffic_of(engine, left.port_no) == len(sent), 10, "all are dealt with")
    snapshot = engine.snapshot()
    assert snapshot.ports[full.port_no].drops == {DropReason.TAIL: extra}
    assert snapshot.queued[full.port_no] == depth
    assert not any(snapshot.ports[each.port_no].drops for each in (left, right, other))
    assert full.receive_many(kept) == sent[:kept]
    assert full.waiting() == []


def test_full_one_is_no_reason_to_pause_a_sender(engine: Engine, keep: Keep) -> None:
    left, right, full = keep(plug(engine)), keep(plug(engine)), keep(plug_limited_monitor(engine))
    with running_exchange(left, right) as exchange:
        wait_until(
            lambda: engine.snapshot().ports[full.port_no].drops.get(DropReason.TAIL, 0) > 100,
            20,
            "the monitor loses frames",
        )
        rounds = exchange.rounds
        wait_until(lambda: exchange.rounds > rounds + 20, 20, "the two talk")


def test_those_that_come_and_go_while_frames_move(engine: Engine, keep: Keep) -> None:
    left, right = keep(plug_unconnected(engine)), keep(plug_unconnected(engine))
    with running_exchange(left, right):
        for number in range(60):
            monitor = plug_monitor(engine) if number % 2 else plug_limited_monitor(engine)
            assert len(monitor.receive()) >= 60
            if number % 3 == 0:
                monitor.close()
            engine.detach(monitor.port_no)
            monitor.close()
    assert not any(engine.snapshot().ports[guest.port_no].drops for guest in (left, right))
    assert engine.debug_counts()["ports"] == 2


@pytest.mark.parametrize(
    ("kind", "framing"),
    [
        (socket.SOCK_SEQPACKET, Framing.SEQPACKET),
        (socket.SOCK_SEQPACKET, Framing.DEVICE),
        (socket.SOCK_STREAM, Framing.STREAM),
    ],
)
def test_end_of_one_is_seen_though_it_is_not_read(
    engine: Engine, keep: Keep, kind: int, framing: Framing
) -> None:
    left, right = keep(plug(engine)), keep(plug(engine))
    monitor = plug_monitor_on(engine, kind, framing)
    learn(left, [right, monitor], mac(1))
    monitor.close()
    events = events_until(engine, LinkClosed)
    assert [event.port_no for event in events if isinstance(event, LinkClosed)] == [monitor.port_no]
    learn(left, [right], mac(1))
    snapshot = engine.snapshot()
    assert snapshot.ports[monitor.port_no].drops == {DropReason.PEER_GONE: 1}
    assert snapshot.down == {monitor.port_no}
    assert idle_cpu_ns() < 50_000_000


def test_one_whose_datagram_socket_is_gone_is_counted(engine: Engine, keep: Keep) -> None:
    left, right, monitor = keep(plug(engine)), keep(plug(engine)), plug_monitor(engine)
    monitor.close()
    for _ in range(5):
        learn(left, [right], mac(1))
    wait_until(
        lambda: engine.snapshot().ports[monitor.port_no].drops == {DropReason.PEER_GONE: 5}, 10, "drops"
    )
    assert idle_cpu_ns() < 50_000_000
    engine.detach(monitor.port_no)
    learn(left, [right], mac(1))


def test_one_with_a_shared_receiver_is_refused(engine: Engine) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as shared:
        with pytest.raises(SwitchError, match="shared"):
            engine.attach(Link(ours.fileno(), Framing.DATAGRAM, shared.fileno(), b"", monitor=True))
        assert is_open(ours.fileno())
        assert engine.debug_counts()["ports"] == 0


def test_numbers_of_monitors_are_ports_numbers(engine: Engine, keep: Keep) -> None:
    assert [keep(how(engine)).port_no for how in (plug_monitor, plug, plug_monitor)] == [1, 2, 3]
    engine.detach(1)
    guest = keep(plug(engine))
    assert guest.port_no == 1, "an ordinary port now"
    guest.send(frame(BROADCAST, mac(1)))
    wait_until(lambda: [entry.port_no for entry in engine.fdb()] == [1], 10, "it is learnt")
