"""What an engine does for a switch that goes on elsewhere: held starts, given numbers, restored addresses;
and what is changed while it runs."""

from __future__ import annotations

import itertools
import select
import socket
import threading
import time

import pytest

from support.deadline import scaled, wait_until
from support.engines import ENGINES, WHY_NOT_NATIVE
from support.exchange import background
from support.guest_end import BROADCAST, events_until, frame, idle_cpu_ns, is_open, mac, plug, unread_limit
from umlab._clock import ManualClock
from umlab.engine.contract import Engine
from umlab.errors import NoSuchPort, StateError, SwitchError
from umlab.switch.counters import DropReason
from umlab.switch.events import MacAged, MacLearned
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SECOND_NS, Framing, Link, SwitchConfig

SPINNING_NS = 50_000_000


def held_engine(kind: str, clock: ManualClock | None = None) -> Engine:
    engine = ENGINES[kind](SwitchConfig(), clock)
    engine.start(held=True)
    return engine


def seqpacket() -> tuple[Link, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.settimeout(scaled(10))
    return Link(ours.detach(), Framing.SEQPACKET), theirs


@pytest.mark.parametrize("kind", sorted(ENGINES))
class TestHeld:
    def test_no_frame_moves_before_the_release(self, kind: str) -> None:
        engine = held_engine(kind)
        one, two = plug(engine), plug(engine)
        one.send(frame(BROADCAST, mac(1)))
        assert engine.snapshot().counters.learned == 0
        assert engine.debug_counts()["threads"] == 0
        assert two.waiting() == []
        engine.release()
        assert two.receive() == frame(BROADCAST, mac(1))
        engine.stop()
        for guest in (one, two):
            guest.close()

    def test_stop_without_a_release_closes_everything(self, kind: str) -> None:
        engine = held_engine(kind)
        link, theirs = seqpacket()
        engine.attach(link)
        engine.stop()
        engine.stop()
        assert set(engine.debug_counts().values()) == {0}
        assert theirs.recv(10) == b""
        theirs.close()

    def test_release_that_cannot_start_its_thread_leaves_all_to_be_stopped(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = held_engine(kind)
        link, theirs = seqpacket()
        engine.attach(link)

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(RuntimeError, match="new thread"):
                engine.release()
        assert engine.debug_counts()["threads"] == 0
        engine.stop()
        assert set(engine.debug_counts().values()) == {0}
        assert theirs.recv(10) == b""
        theirs.close()

    def test_second_start_is_refused(self, kind: str) -> None:
        engine = held_engine(kind)
        with pytest.raises(StateError, match="started before"):
            engine.start()
        engine.stop()

    def test_ports_and_addresses_are_there_for_the_first_frame(self, kind: str) -> None:
        clock = ManualClock(100 * SECOND_NS)
        engine = held_engine(kind, clock)
        links = {number: seqpacket() for number in (7, 2, 9)}
        for number, (link, _) in links.items():
            assert engine.attach(link, number) == number
        engine.restore_fdb([FdbEntry(mac(7), 7, 98 * SECOND_NS), FdbEntry(mac(9), 9, 99 * SECOND_NS)])
        sent = frame(mac(7), mac(2))
        links[2][1].send(sent)
        engine.release()
        assert links[7][1].recv(2000) == sent
        # It went nowhere else, and counts as known from then on.
        assert not select.select([links[9][1]], [], [], 0)[0]
        assert engine.fdb()[:2] == [FdbEntry(mac(7), 7, 98 * SECOND_NS), FdbEntry(mac(9), 9, 99 * SECOND_NS)]
        assert engine.snapshot().counters.learned == 1
        assert [event.mac for event in engine.take_events() if isinstance(event, MacLearned)] == [mac(2)]
        engine.stop()
        for _, theirs in links.values():
            theirs.close()


class TestPortNumbers:
    def test_number_that_is_taken_or_too_low_is_refused_and_the_descriptor_stays_the_callers(
        self, engine: Engine
    ) -> None:
        one, other = seqpacket(), seqpacket()
        assert engine.attach(one[0], 3) == 3
        before = engine.debug_counts()
        for number in (3, 0, -1):
            with pytest.raises(SwitchError, match="cannot be had"):
                engine.attach(other[0], number)
            assert is_open(other[0].fd)
        assert engine.debug_counts() == before
        # Nothing of the refusals is left: it is attached as ever, under the lowest number.
        assert engine.attach(other[0]) == 1
        engine.detach(3)
        assert one[1].recv(10) == b""
        for _, theirs in (one, other):
            theirs.close()

    @pytest.mark.skipif(bool(WHY_NOT_NATIVE), reason=WHY_NOT_NATIVE)
    @pytest.mark.parametrize("number", [2**32, 2**32 + 1, 2**64])
    def test_number_that_tables_have_no_room_for_is_refused(self, number: int) -> None:
        engine = held_engine("native")
        link, theirs = seqpacket()
        before = engine.debug_counts()
        with pytest.raises(SwitchError, match="cannot be had"):
            engine.attach(link, number)
        assert is_open(link.fd)
        assert engine.debug_counts() == before
        assert engine.attach(link, 2**32 - 1) == 2**32 - 1
        assert list(engine.snapshot().ports) == [2**32 - 1]
        engine.stop()
        theirs.close()

    def test_lowest_number_goes_around_those_that_were_given(self, engine: Engine) -> None:
        guests = [seqpacket() for _ in range(4)]
        numbers = [
            engine.attach(link, number) for (link, _), number in zip(guests, (2, 1, None, None), strict=True)
        ]
        assert numbers == [2, 1, 3, 4]
        for _, theirs in guests:
            theirs.close()


@pytest.mark.parametrize("kind", sorted(ENGINES))
class TestRestore:
    def test_what_is_dead_unknown_or_from_the_future_is_left_out(self, kind: str) -> None:
        clock = ManualClock(1000 * SECOND_NS)
        engine = held_engine(kind, clock)
        guest = plug(engine)
        now = clock.now_ns()
        engine.restore_fdb(
            [
                FdbEntry(mac(1), 1, now - 300 * SECOND_NS - 1),
                FdbEntry(mac(2), 1, now - 300 * SECOND_NS),
                FdbEntry(mac(3), 1, now),
                FdbEntry(mac(4), 1, now + 1),
                FdbEntry(mac(5), 8, now),
            ]
        )
        assert [entry.mac for entry in engine.fdb()] == [mac(2), mac(3)]
        assert engine.snapshot().fdb_entries == 2
        engine.stop()
        guest.close()

    def test_restored_stations_take_their_places_among_those_that_are_there(self, kind: str) -> None:
        """Oldest first, of one instant those that were there before, and the oldest age first."""
        clock = ManualClock(100 * SECOND_NS)
        engine = held_engine(kind, clock)
        guest, other = plug(engine), plug(engine)
        engine.release()
        for number in (1, 2):
            clock.advance(10 * SECOND_NS)
            guest.send(frame(BROADCAST, mac(number)))
            assert other.receive() == frame(BROADCAST, mac(number))
            engine.snapshot()  # comes after the burst, which has one time for all its frames
        seen = {3: 90, 4: 110, 5: 115, 6: 120, 7: 91}
        engine.restore_fdb([FdbEntry(mac(number), 2, at * SECOND_NS) for number, at in seen.items()])
        assert [entry.mac for entry in engine.fdb()] == [mac(number) for number in (3, 7, 1, 4, 5, 2, 6)]
        engine.take_events()
        clock.advance(290 * SECOND_NS + 1)  # two of them are 300 s old and one instant
        guest.send(frame(BROADCAST, mac(8)))
        assert other.receive() == frame(BROADCAST, mac(8))
        engine.snapshot()
        assert [event.mac for event in engine.take_events() if isinstance(event, MacAged)] == [
            mac(number) for number in (3, 7, 1, 4)
        ]
        engine.stop()
        for each in (guest, other):
            each.close()

    def test_full_table_is_restored_among_older_and_newer_stations(self, kind: str) -> None:
        """Entries come oldest first, as ``fdb`` returns them: a place is not searched from the far end."""
        count = SwitchConfig().fdb_capacity
        clock = ManualClock(1000 * SECOND_NS)
        engine = held_engine(kind, clock)
        guest = plug(engine)
        now = clock.now_ns()
        there = [
            FdbEntry(mac(count + number), 1, now - age)
            for number, age in enumerate((2 * count, count, count // 2, 0))
        ]
        engine.restore_fdb(there)
        restored = [FdbEntry(mac(number), 1, now - count + number) for number in range(count - len(there))]
        engine.restore_fdb(restored)
        assert engine.snapshot().fdb_entries == count
        # Of one instant, those that were there before come first.
        assert engine.fdb() == sorted(there + restored, key=lambda entry: entry.last_seen_ns)
        engine.stop()
        guest.close()

    def test_what_has_aged_makes_room_for_what_is_restored(self, kind: str) -> None:
        """No frame has come since; the timer is far away on the machine's clock."""
        clock = ManualClock(100 * SECOND_NS)
        engine = held_engine(kind, clock)
        guest = plug(engine)
        engine.configure(SwitchConfig(fdb_capacity=2))
        engine.restore_fdb([FdbEntry(mac(number), 1, clock.now_ns()) for number in (1, 2)])
        clock.advance(301 * SECOND_NS)
        engine.take_events()
        restored = [FdbEntry(mac(number), 1, clock.now_ns()) for number in (2, 3)]
        engine.restore_fdb(restored)
        assert engine.fdb() == restored
        assert engine.take_events() == [MacAged(clock.now_ns(), mac(number), 1) for number in (1, 2)]
        engine.stop()
        guest.close()


class TestFlush:
    def test_addresses_of_a_port_or_all_are_forgotten(self, engine: Engine) -> None:
        one, two = plug(engine), plug(engine)
        for guest, number in ((one, 1), (one, 3), (two, 2)):
            guest.send(frame(BROADCAST, mac(number)))
        wait_until(lambda: len(engine.fdb()) == 3, 10, "three addresses")
        assert engine.flush_fdb(1) == 2
        assert [entry.mac for entry in engine.fdb()] == [mac(2)]
        assert engine.flush_fdb(1) == 0
        with pytest.raises(NoSuchPort):
            engine.flush_fdb(9)
        assert engine.flush_fdb() == 1
        assert engine.flush_fdb() == 0
        # What was forgotten is flooded to, and learnt anew.
        for guest in (one, two):
            guest.waiting()
        one.send(frame(mac(2), mac(1)))
        assert two.receive() == frame(mac(2), mac(1))
        assert [entry.mac for entry in engine.fdb()] == [mac(1)]
        for guest in (one, two):
            guest.close()

    @pytest.mark.parametrize("whole", [False, True])
    def test_addresses_that_are_learnt_meanwhile_save_no_other(self, engine: Engine, whole: bool) -> None:
        """A flush takes many steps, between which the guest is heard."""
        guest = plug(engine)
        before = {mac(number) for number in range(5000)}
        others = itertools.count(len(before))

        def speak() -> None:
            guest.send(frame(BROADCAST, mac(next(others))))

        with background(speak):
            for _ in range(10):
                now = engine.snapshot().at_ns
                engine.restore_fdb([FdbEntry(address, 1, now) for address in before])
                assert engine.flush_fdb(None if whole else 1) >= len(before)
                assert not before & {entry.mac for entry in engine.fdb()}
        guest.close()


class TestConfigure:
    def test_longer_frames_pass_at_once_and_ports_and_addresses_stay(self, engine: Engine) -> None:
        guests = [plug(engine, framing) for framing in (Framing.DATAGRAM, Framing.SEQPACKET, Framing.DEVICE)]
        guests[0].send(frame(BROADCAST, mac(1), size=engine.config.max_frame + 1))
        counters = engine.snapshot
        wait_until(lambda: counters().ports[1].drops.get(DropReason.OVERSIZE) == 1, 10, "the drop")
        guests[1].send(frame(BROADCAST, mac(2)))
        wait_until(lambda: len(engine.fdb()) == 1, 10, "an address")
        for guest in guests:
            guest.waiting()
        engine.configure(SwitchConfig(max_frame=40_000, hub=True))
        assert engine.config == SwitchConfig(max_frame=40_000, hub=True)
        long = frame(mac(2), mac(1), size=40_000)
        guests[0].send(long)
        # A hub, too: it goes everywhere though its address is known.
        assert [guest.receive() for guest in guests[1:]] == [long, long]
        engine.configure(SwitchConfig(max_frame=100))
        guests[1].send(frame(mac(1), mac(2), size=101))
        wait_until(lambda: counters().ports[2].drops.get(DropReason.OVERSIZE) == 1, 10, "the drop")
        assert len(engine.fdb()) == 2
        for guest in guests:
            guest.close()

    def test_frames_that_wait_are_not_lost_and_the_new_depth_holds(self, engine: Engine) -> None:
        from support.guest_end import plug_unconnected

        sender, slow = plug(engine), plug_unconnected(engine)
        count = unread_limit() + 3
        for _ in range(count):
            sender.send(frame(BROADCAST, mac(1)))
        wait_until(lambda: engine.debug_counts()["queued_frames"] == 3, 10, "a queue")
        engine.configure(SwitchConfig(egress_queue_depth=1))
        assert engine.debug_counts()["queued_frames"] == 3
        sender.send(frame(BROADCAST, mac(1)))
        wait_until(
            lambda: engine.snapshot().ports[slow.port_no].drops.get(DropReason.TAIL) == 1, 10, "a tail drop"
        )
        assert len(slow.receive_many(count)) == count
        for guest in (sender, slow):
            guest.close()

    def test_smaller_fdb_forgets_what_was_seen_longest_ago(self, engine: Engine) -> None:
        guest = plug(engine)
        for number in range(5):
            guest.send(frame(BROADCAST, mac(number)))
        wait_until(lambda: len(engine.fdb()) == 5, 10, "five addresses")
        engine.configure(SwitchConfig(fdb_capacity=2))
        assert [entry.mac for entry in engine.fdb()] == [mac(3), mac(4)]
        guest.close()

    def test_shorter_ageing_is_seen_without_a_frame(self, engine: Engine) -> None:
        guest = plug(engine)
        guest.send(frame(BROADCAST, mac(1)))
        wait_until(lambda: len(engine.fdb()) == 1, 10, "an address")
        engine.take_events()
        begin = time.monotonic()
        engine.configure(SwitchConfig(ageing_time_ns=1))
        # Sweeps are two seconds apart; the timer of before would come in five minutes.
        assert [event.mac for event in events_until(engine, MacAged) if isinstance(event, MacAged)] == [
            mac(1)
        ]
        assert time.monotonic() - begin < scaled(10)
        assert idle_cpu_ns() < SPINNING_NS
        guest.close()

    def test_first_port_number_cannot_be_changed_and_nothing_else_is_then(self, engine: Engine) -> None:
        before = engine.config
        with pytest.raises(ValueError, match="first_port_no"):
            engine.configure(SwitchConfig(first_port_no=2, hub=True))
        assert engine.config == before

    def test_engine_that_does_not_run_cannot_be_told_anything(self, engine: Engine) -> None:
        engine.stop()
        with pytest.raises(StateError):
            engine.configure(SwitchConfig(hub=True))
