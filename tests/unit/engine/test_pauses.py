"""Senders that are faster than their receivers: what is lost, and that nobody waits for long."""

from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator

import pytest

from support.deadline import scaled, wait_until
from support.engines import ENGINES, WHY_NOT_NATIVE
from support.exchange import running_exchange
from support.guest_end import GuestEnd, frame, mac, plug, plug_unconnected, traffic_of, unread_limit
from umlab._clock import ManualClock
from umlab.engine.contract import Engine
from umlab.switch.counters import DropReason
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SwitchConfig

EngineMaker = Callable[..., Engine]
COUNT = 5000
SENDER, RECEIVER = mac(0x5E), mac(0x4E)


def numbered(count: int) -> list[bytes]:
    return [frame(RECEIVER, SENDER, payload=number.to_bytes(4, "big")) for number in range(count)]


def introduce(engine: Engine, receiver: GuestEnd) -> None:
    receiver.send(frame(RECEIVER, RECEIVER))
    wait_until(lambda: traffic_of(engine, receiver.port_no), 10, "it is known")


def drops_to_steady_reader(engine: Engine) -> int:
    """Send to one that takes eight frames and a short nap; return how many frames were lost to it."""
    sender, receiver = plug(engine), plug_unconnected(engine)
    introduce(engine, receiver)
    frames, received = numbered(COUNT), []
    last = frame(RECEIVER, SENDER, payload=b"the end")

    def read() -> None:
        while True:
            for _ in range(8):
                received.append(receiver.receive())
                if received[-1] == last:
                    return
            select.select([], [], [], 0.00005)

    sender.sock.setblocking(True)  # as a guest's kernel sends
    reader = threading.Thread(target=read)
    reader.start()
    for each in frames:
        sender.send(each)
    wait_until(lambda: traffic_of(engine, sender.port_no) == COUNT, 10, "all frames are dealt with")
    wait_until(lambda: engine.snapshot().queued[receiver.port_no] == 0, 10, "no frame waits")
    sender.send(last)
    reader.join()
    assert received.pop() == last
    lost = engine.snapshot().ports[receiver.port_no].drops.get(DropReason.TAIL, 0)
    assert len(received) == COUNT - lost
    assert received == sorted(set(received)), "in order, each once"
    for guest in (sender, receiver):
        engine.detach(guest.port_no)
        guest.close()
    return lost


@pytest.mark.skipif(bool(WHY_NOT_NATIVE), reason=WHY_NOT_NATIVE)
def test_reader_that_keeps_reading_loses_little_to_a_faster_sender() -> None:
    """The processor may be away from the reader for longer than a pause; it is not so every time.

    Without pauses more than half of the frames is lost.
    """
    engine = ENGINES["native"](SwitchConfig(), None)
    engine.start()
    lost = [COUNT]
    while lost[-1] > COUNT // 20 and len(lost) < 40:
        lost.append(drops_to_steady_reader(engine))
    engine.stop()
    assert lost[-1] <= COUNT // 20, lost


def test_sender_to_a_guest_that_has_stopped_gets_through(engine: Engine) -> None:
    left, right = plug_unconnected(engine), plug_unconnected(engine)
    sender, stopped = plug(engine), plug_unconnected(engine)
    introduce(engine, stopped)
    with running_exchange(left, right):
        for each in numbered(COUNT):
            sender.send(each)  # within its socket's time limit
        wait_until(lambda: traffic_of(engine, sender.port_no) == COUNT, 10, "all frames are dealt with")
    snapshot = engine.snapshot()
    hellos = 2  # of the two, to all
    depth = engine.config.egress_queue_depth
    assert snapshot.queued[stopped.port_no] == depth
    lost = snapshot.ports[stopped.port_no].drops[DropReason.TAIL]
    assert lost == COUNT + hellos - depth - unread_limit()
    for guest in (left, right):
        assert not snapshot.ports[guest.port_no].drops
    for guest in (left, right, sender, stopped):
        guest.close()


class Paused:
    """A guest whose full socket is served when the engine is released, to one whose queue is short.

    What comes right after the release comes while the native engine reads no more from the sender.

    Args:
        kind: Of the engine.
    """

    DEPTH = 16
    SENT = 200

    def __init__(self, kind: str) -> None:
        self.engine = ENGINES[kind](SwitchConfig(egress_queue_depth=self.DEPTH), ManualClock(1))
        self.engine.start(held=True)
        self.left, self.right = plug(self.engine), plug(self.engine)
        self.sender, self.receiver = plug(self.engine), plug_unconnected(self.engine)
        self.engine.restore_fdb([FdbEntry(RECEIVER, self.receiver.port_no, 1)])
        self.frames = numbered(self.SENT)
        self.sender.sock.setblocking(
            False
        )  # a time limit would end a send when a quarter of the room is taken
        for each in self.frames:
            self.sender.send(each)
        self.sender.sock.settimeout(scaled(10))
        self.engine.release()

    def wait_for_all(self) -> None:
        """Wait until every frame has been read from the sender."""
        wait_until(lambda: traffic_of(self.engine, self.sender.port_no) == self.SENT, 10, "it goes on")

    def end(self) -> None:
        """See that the others can talk, and that nothing is left when the ports are gone."""
        with running_exchange(self.left, self.right):
            pass
        guests = (self.left, self.right, self.sender, self.receiver)
        for guest in guests:
            if guest.port_no in self.engine.snapshot().ports:
                self.engine.detach(guest.port_no)
        assert self.engine.debug_counts()["ports"] == 0
        assert self.engine.debug_counts()["queued_frames"] == 0
        self.engine.stop()
        assert set(self.engine.debug_counts().values()) == {0}
        for guest in guests:
            guest.close()


@pytest.fixture(params=sorted(ENGINES))
def make_paused(request: pytest.FixtureRequest) -> Iterator[Callable[[], Paused]]:
    """Return a function that makes a sender that is paused; its engine is stopped whatever the test does."""
    made: list[Paused] = []

    def make() -> Paused:
        made.append(Paused(request.param))
        return made[-1]

    yield make
    for paused in made:
        paused.engine.stop()


ROUNDS = range(5)


def test_sender_that_detaches_while_it_is_paused(make_paused: Callable[[], Paused]) -> None:
    for _ in ROUNDS:
        paused = make_paused()
        paused.engine.detach(paused.sender.port_no)
        late = plug(paused.engine)
        assert late.port_no == paused.sender.port_no
        count = paused.engine.snapshot().ports[paused.receiver.port_no].tx_frames
        queued = paused.engine.debug_counts()["queued_frames"]
        received = paused.receiver.receive_many(count + queued)
        assert received == paused.frames[: len(received)]
        # Who has its number is not paused.
        late.send(frame(RECEIVER, mac(7)))
        assert paused.receiver.receive() == frame(RECEIVER, mac(7))
        paused.end()
        late.close()


def test_receiver_that_detaches_while_a_sender_is_paused_for_it(make_paused: Callable[[], Paused]) -> None:
    for _ in ROUNDS:
        paused = make_paused()
        paused.engine.detach(paused.receiver.port_no)
        paused.sender.send(last := frame(mac(9), SENDER, payload=b"the last"))
        received = [paused.left.receive()]  # its address is known no more
        while received[-1] != last:
            received.append(paused.left.receive())
        assert traffic_of(paused.engine, paused.sender.port_no) == paused.SENT + 1
        paused.end()


@pytest.mark.parametrize("depth", [1, Paused.DEPTH - 1, 4 * Paused.DEPTH, 10_000])
def test_queue_depth_that_changes_while_a_sender_is_paused(
    make_paused: Callable[[], Paused], depth: int
) -> None:
    for _ in ROUNDS:
        paused = make_paused()
        paused.engine.configure(SwitchConfig(egress_queue_depth=depth))
        paused.wait_for_all()
        snapshot = paused.engine.snapshot()
        port = snapshot.ports[paused.receiver.port_no]
        promised = port.tx_frames + snapshot.queued[paused.receiver.port_no]
        assert promised + port.drops.get(DropReason.TAIL, 0) == paused.SENT
        assert promised >= unread_limit() + min(depth, Paused.DEPTH)
        received = paused.receiver.receive_many(promised)
        assert received == sorted(set(received))
        assert paused.receiver.waiting() == []
        paused.end()
