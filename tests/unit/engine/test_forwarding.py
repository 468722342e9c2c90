"""What an engine does with frames, over real sockets."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

import pytest

from support.deadline import wait_until
from support.guest_end import (
    BROADCAST,
    GuestEnd,
    frame,
    idle_cpu_ns,
    mac,
    plug,
    plug_headed,
    plug_unconnected,
    traffic_of,
    unread_limit,
)
from umlab.engine.contract import Engine
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import (
    MAX_WAITING_EVENTS,
    EventsLost,
    FdbFull,
    MacAged,
    MacLearned,
    PortAttached,
    StationMoved,
)
from umlab.switch.model import Framing, Link, SwitchConfig

EngineMaker = Callable[..., Engine]
Plug = Callable[[Engine], GuestEnd]


def plug_seqpacket(engine: Engine) -> GuestEnd:
    return plug(engine, Framing.SEQPACKET)


def plug_device(engine: Engine) -> GuestEnd:
    """A character device that keeps message boundaries, as a tap does, is what read() sees here."""
    return plug(engine, Framing.DEVICE)


def plug_stream(engine: Engine) -> GuestEnd:
    return plug(engine, Framing.STREAM)


@pytest.fixture(
    params=[plug, plug_unconnected, plug_seqpacket, plug_device, plug_stream, plug_headed],
    ids=["connected", "unconnected", "seqpacket", "device", "stream", "headed"],
)
def plug_any(request: pytest.FixtureRequest) -> Plug:
    chosen: Plug = request.param
    return chosen


def plugged(engine: Engine, count: int, how: Plug = plug) -> list[GuestEnd]:
    return [how(engine) for _ in range(count)]


def close_all(guests: list[GuestEnd]) -> None:
    for guest in guests:
        guest.close()


def learn(guest: GuestEnd, others: list[GuestEnd], address: bytes) -> None:
    hello = frame(BROADCAST, address)
    guest.send(hello)
    for other in others:
        assert other.receive() == hello


def test_flood_then_unicast_over_every_framing(engine: Engine, plug_any: Plug) -> None:
    guests = plugged(engine, 3, plug_any)
    learn(guests[0], guests[1:], mac(1))
    unicast = frame(mac(1), mac(2), payload=b"for one only")
    guests[1].send(unicast)
    assert guests[0].receive() == unicast
    last = frame(BROADCAST, mac(2))
    guests[1].send(last)
    assert guests[2].receive() == last
    assert [(entry.mac, entry.port_no) for entry in engine.fdb()] == [(mac(1), 1), (mac(2), 2)]
    close_all(guests)


def test_frames_of_one_guest_stay_whole_and_in_order(engine: Engine, plug_any: Plug) -> None:
    guests = plugged(engine, 2, plug_any)
    sent = [frame(BROADCAST, mac(1), size, bytes([size % 251])) for size in (14, 60, 1514, 9018) * 30]
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(guests[1].receive_many(len(sent))))
    reader.start()
    for each in sent:
        guests[0].send(each)
    reader.join()
    assert received == sent
    wait_until(lambda: engine.snapshot().ports[2].tx_frames == len(sent), 5, "all frames are counted")
    total = sum(map(len, sent))
    ports = engine.snapshot().ports
    assert ports[1] == PortCounters(rx_frames=len(sent), rx_bytes=total)
    assert (ports[2].tx_bytes, ports[2].drops) == (total, {})
    close_all(guests)


@pytest.mark.parametrize("size", [60, 3000])
def test_buffers_are_used_again_and_again(engine: Engine, size: int) -> None:
    """More frames than the native engine has buffers of either size, most of them through a queue."""
    sender, reader = plugged(engine, 2, plug_unconnected)
    window = 100
    sent = [frame(BROADCAST, mac(1), size, number.to_bytes(4, "big")) for number in range(window)]
    for _ in range((70_000 if size == 60 else 5000) // window):
        for each in sent:
            sender.send(each)
        assert reader.receive_many(window) == sent
    close_all([sender, reader])


def test_station_that_moves_is_followed(engine: Engine) -> None:
    guests = plugged(engine, 3)
    learn(guests[0], guests[1:], mac(1))
    learn(guests[1], [guests[0], guests[2]], mac(1))
    guests[2].send(frame(mac(1), mac(3)))
    assert guests[1].receive() == frame(mac(1), mac(3))
    assert guests[0].waiting() == []
    moves = [event for event in engine.take_events() if isinstance(event, StationMoved)]
    assert [(move.mac, move.port_no, move.old_port_no) for move in moves] == [(mac(1), 2, 1)]
    close_all(guests)


def test_hub_repeats_everything_whatever_it_has_learnt(make_engine: EngineMaker) -> None:
    engine = make_engine(SwitchConfig(hub=True))
    guests = plugged(engine, 3)
    learn(guests[0], guests[1:], mac(1))
    guests[1].send(frame(mac(1), mac(2)))
    assert guests[0].receive() == guests[2].receive() == frame(mac(1), mac(2))
    assert {entry.mac: entry.port_no for entry in engine.fdb()} == {mac(1): 1, mac(2): 2}
    close_all(guests)


def test_runts_empty_and_oversized_frames_are_counted_and_go_nowhere(make_engine: EngineMaker) -> None:
    engine = make_engine(SwitchConfig(max_frame=1518))
    guests = plugged(engine, 2)
    for bad in (b"", b"x" * 13, frame(BROADCAST, mac(9), 1519), frame(BROADCAST, mac(9), 20_000)):
        guests[0].send(bad)
    learn(guests[0], guests[1:], mac(1))
    assert guests[1].waiting() == []
    counters = engine.snapshot().ports[1]
    assert counters.drops == {DropReason.RUNT: 2, DropReason.OVERSIZE: 2}
    assert (counters.rx_frames, counters.rx_bytes) == (1, 60)
    assert [entry.mac for entry in engine.fdb()] == [mac(1)]
    close_all(guests)


def test_100000_sources_fill_the_fdb_and_leave_the_others_their_traffic(engine: Engine) -> None:
    sources, capacity = 100_000, engine.config.fdb_capacity
    flooder, left, right = guests = plugged(engine, 3)
    learn(left, [flooder, right], mac(0xAAAAAA))
    learn(right, [flooder, left], mac(0xBBBBBB))
    # To a station on the flooder's own port, so that the flood itself burdens nobody.
    flooder.send(frame(flooder_mac := mac(0xCCCCCC), flooder_mac))
    for number in range(sources):
        flooder.send(flooder_mac + mac(number) + b"\x88\xb5")
        if number % 10_000 == 0:
            ping = frame(mac(0xBBBBBB), mac(0xAAAAAA), payload=number.to_bytes(4, "big"))
            left.send(ping)
            assert right.receive() == ping
    wait_until(lambda: traffic_of(engine, 1) == sources + 1, 60, "the whole flood is counted")
    assert len(engine.fdb()) == capacity
    snapshot = engine.snapshot()
    assert snapshot.counters.learned == capacity
    assert snapshot.counters.learn_refused == sources + 3 - capacity
    right.send(frame(mac(0xAAAAAA), mac(0xBBBBBB)))
    assert left.receive() == frame(mac(0xAAAAAA), mac(0xBBBBBB))
    events = engine.take_events()
    lost = [event.count for event in events if isinstance(event, EventsLost)]
    learned = sum(isinstance(event, MacLearned) for event in events)
    full = sum(isinstance(event, FdbFull) for event in events)
    # Nobody read the events meanwhile: they are bounded, and not one is unaccounted for.
    assert len(events) == MAX_WAITING_EVENTS + full + len(lost)
    assert full == 1
    assert sum(lost) + learned + full == capacity + 1
    close_all(guests)


def test_guest_that_stops_reading_loses_its_own_frames_only(make_engine: EngineMaker) -> None:
    depth, extra = 50, 100
    engine = make_engine(SwitchConfig(egress_queue_depth=depth))
    sender, reader = plugged(engine, 2)
    stopped = plug_unconnected(engine)
    kept = unread_limit() + depth
    sent = [frame(BROADCAST, mac(1), payload=number.to_bytes(4, "big")) for number in range(kept + extra)]
    for each in sent:
        sender.send(each)
        assert reader.receive() == each
    wait_until(lambda: engine.snapshot().ports[3].drops, 5, "tail drops are counted")
    snapshot = engine.snapshot()
    assert snapshot.ports[3].drops == {DropReason.TAIL: extra}
    assert snapshot.queued == {1: 0, 2: 0, 3: depth}
    assert engine.debug_counts()["queued_frames"] == depth
    assert stopped.receive_many(kept) == sent[:kept]
    after = frame(BROADCAST, mac(1), payload=b"after")
    sender.send(after)
    assert stopped.receive() == reader.receive() == after
    wait_until(lambda: engine.snapshot().ports[3].tx_frames == kept + 1, 5, "the queue is sent")
    assert engine.snapshot().queued[3] == 0
    assert idle_cpu_ns() < 50_000_000, "the engine waits for room that it has no use for"
    close_all([sender, reader, stopped])


def test_guest_that_floods_does_not_starve_the_others(engine: Engine) -> None:
    """A burst is bounded, so another port and a control call get their turn while one never pauses."""
    flooder, left, right = guests = plugged(engine, 3)
    learn(left, [flooder, right], mac(1))
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            flooder.send(frame(mac(9), mac(9)))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for number in range(100):
            ping = frame(mac(1), mac(2), payload=bytes([number]))
            right.send(ping)
            assert left.receive() == ping
            engine.snapshot()
    finally:
        stop.set()
        thread.join()
    close_all(guests)


def test_frame_that_the_socket_cannot_take_is_refused_and_counted(engine: Engine) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel's least, under 5000 bytes
    sender, other = plugged(engine, 2)
    port_no = engine.attach(Link(ours.detach(), Framing.DATAGRAM))
    big = frame(BROADCAST, mac(1), 9000)
    sender.send(big)
    assert other.receive() == big
    small = frame(BROADCAST, mac(1))
    sender.send(small)
    assert theirs.recv(100) == small
    assert engine.snapshot().ports[port_no].drops == {DropReason.REFUSED: 1}
    theirs.close()
    close_all([sender, other])


def test_stations_age_while_no_frame_comes(make_engine: EngineMaker) -> None:
    engine = make_engine(SwitchConfig(ageing_time_ns=1_000_000))
    guests = plugged(engine, 2)
    guests[0].send(frame(BROADCAST, mac(1)))
    guests[1].receive()
    seen: list[object] = []

    def aged() -> bool:
        seen.extend(engine.take_events())
        return any(isinstance(event, MacAged) for event in seen)

    wait_until(aged, 10, "the timer removes the station")
    assert engine.snapshot().counters.aged == 1
    assert [type(event) for event in seen] == [PortAttached, PortAttached, MacLearned, MacAged]
    close_all(guests)
