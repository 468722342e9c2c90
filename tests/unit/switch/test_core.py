"""The reference forwarding core."""

from __future__ import annotations

import pytest

from umlab.errors import NoSuchPort, SwitchError
from umlab.switch.core import SWEEP_TIME_NS, SwitchCore, Verdict
from umlab.switch.counters import DropReason, PortCounters
from umlab.switch.events import (
    FdbFull,
    LinkClosed,
    MacAged,
    MacLearned,
    PortAttached,
    PortDetached,
    StationMoved,
    UnknownUnicast,
)
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SECOND_NS, SwitchConfig

A, B, C = (bytes([2, 0, 0, 0, 0, number]) for number in (0xA, 0xB, 0xC))
BROADCAST = b"\xff" * 6
STP = bytes.fromhex("0180c2000000")
AGEING = 300 * SECOND_NS


def frame(dst: bytes, src: bytes, size: int = 60) -> bytes:
    return (dst + src + b"\x08\0").ljust(size, b"\0")


def switch(ports: int = 3, **config: int | bool) -> SwitchCore:
    core = SwitchCore(SwitchConfig(**config))  # type: ignore[arg-type]
    for _ in range(ports):
        core.add_port(0)
    core.take_events()
    return core


class TestPorts:
    def test_add_port_takes_the_lowest_free_number(self) -> None:
        core = switch(3, first_port_no=5)
        assert core.ports() == [5, 6, 7]
        core.remove_port(6, 1)
        assert core.ports() == [5, 7]
        assert core.add_port(2) == 6
        assert core.add_port(2) == 8
        assert core.take_events() == [PortDetached(1, 6), PortAttached(2, 6), PortAttached(2, 8)]

    def test_remove_port_forgets_its_addresses_only(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 1)
        core.receive(2, frame(BROADCAST, B), 2)
        core.remove_port(1, 3)
        assert core.fdb(3) == [FdbEntry(B, 2, 2)]
        assert core.receive(3, frame(A, C), 4).egress == (2,)

    def test_new_port_of_the_same_number_starts_from_nothing(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 1)
        core.remove_port(1, 2)
        assert core.add_port(3) == 1
        assert core.port_counters(1) == PortCounters()

    @pytest.mark.parametrize("port_no", [0, 4, -1])
    def test_port_that_does_not_exist_is_refused(self, port_no: int) -> None:
        core = switch()
        with pytest.raises(NoSuchPort):
            core.remove_port(port_no, 0)
        with pytest.raises(NoSuchPort):
            core.receive(port_no, frame(A, B), 0)
        with pytest.raises(NoSuchPort):
            core.port_counters(port_no)

    def test_link_closed_is_reported_and_the_port_stays(self) -> None:
        core = switch()
        core.link_closed(2, 104, 9)
        assert core.events_waiting()
        assert core.next_event() == LinkClosed(9, 2, 104)
        assert core.next_event() is None
        assert core.ports() == [1, 2, 3]


class TestForwarding:
    @pytest.mark.parametrize("dst", [BROADCAST, STP, B], ids=["broadcast", "reserved", "unknown"])
    def test_flood_reaches_every_other_port_in_order(self, dst: bytes) -> None:
        assert switch(4).receive(2, frame(dst, A), 0) == Verdict((1, 3, 4))

    def test_learnt_destination_gets_the_frame_alone(self) -> None:
        core = switch()
        core.receive(2, frame(BROADCAST, B), 0)
        assert core.receive(1, frame(B, A), 1) == Verdict((2,))

    def test_learnt_on_the_ingress_port_is_dropped_though_its_source_is_learnt(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, B), 0)
        assert core.receive(1, frame(B, A), 1) == Verdict((), DropReason.SAME_PORT)
        assert [entry.mac for entry in core.fdb(1)] == [B, A]
        assert core.port_counters(1).rx_frames == 1
        assert core.port_counters(1).drops == {DropReason.SAME_PORT: 1}

    def test_frame_to_its_own_source_is_dropped(self) -> None:
        assert switch().receive(1, frame(A, A), 0).drop is DropReason.SAME_PORT

    def test_group_source_is_forwarded_and_not_learnt(self) -> None:
        core = switch()
        assert core.receive(1, frame(BROADCAST, STP), 0) == Verdict((2, 3))
        assert core.receive(1, frame(B, STP), 0) == Verdict((2, 3))
        assert core.fdb(0) == []
        assert core.take_events() == []

    def test_flood_on_the_only_port_goes_nowhere_and_is_no_drop(self) -> None:
        core = switch(1)
        assert core.receive(1, frame(BROADCAST, A), 0) == Verdict(())
        assert core.port_counters(1).rx_frames == 1

    def test_flood_follows_ports_that_come_and_go(self) -> None:
        core = switch(2)
        assert core.receive(1, frame(BROADCAST, A), 0).egress == (2,)
        core.add_port(0)
        assert core.receive(1, frame(BROADCAST, A), 0).egress == (2, 3)
        core.remove_port(2, 0)
        assert core.receive(1, frame(BROADCAST, A), 0).egress == (3,)

    @pytest.mark.parametrize("size", [0, 1, 13])
    def test_runt_is_dropped_and_teaches_nothing(self, size: int) -> None:
        core = switch()
        assert core.receive(1, frame(BROADCAST, A)[:size], 0) == Verdict((), DropReason.RUNT)
        assert core.port_counters(1) == PortCounters(drops={DropReason.RUNT: 1})
        assert core.fdb(0) == []

    def test_size_limits_are_14_and_max_frame(self) -> None:
        core = switch(max_frame=1518)
        assert core.receive(1, frame(BROADCAST, A, 14), 0).egress == (2, 3)
        assert core.receive(1, frame(BROADCAST, A, 1518), 0).egress == (2, 3)
        assert core.receive(1, frame(BROADCAST, B, 1519), 0) == Verdict((), DropReason.OVERSIZE)
        assert core.port_counters(1) == PortCounters(2, 1532, 0, 0, {DropReason.OVERSIZE: 1})
        assert [entry.mac for entry in core.fdb(0)] == [A]

    def test_tagged_frame_is_forwarded_like_any_other(self) -> None:
        tagged = BROADCAST + A + bytes.fromhex("8100 0005 0800").ljust(50, b"\0")
        assert switch().receive(1, tagged, 0).egress == (2, 3)

    def test_hub_sends_everything_everywhere_whatever_it_has_learnt(self) -> None:
        core = switch(hub=True)
        core.receive(2, frame(BROADCAST, B), 0)
        assert core.receive(1, frame(B, A), 1) == Verdict((2, 3))
        assert core.receive(1, frame(A, A), 1) == Verdict((2, 3))
        assert core.take_events() == [MacLearned(0, B, 2), MacLearned(1, A, 1)]
        assert core.counters.learned == 2


class TestMonitors:
    @pytest.mark.parametrize("numbers", [(1, 3), (8, 9)])
    def test_each_comes_behind_the_ports_that_a_frame_is_for(self, numbers: tuple[int, int]) -> None:
        core = switch(0)
        for number in (2, 4, 5):
            core.add_port(0, number)
        for number in reversed(numbers):
            core.add_port(0, number, monitor=True)
        assert core.receive(2, frame(BROADCAST, A), 1) == Verdict((4, 5, *numbers))
        assert core.receive(4, frame(A, B), 2) == Verdict((2, *numbers))
        assert core.receive(4, frame(C, B), 2) == Verdict((2, 5, *numbers))
        core.remove_port(numbers[0], 3)
        assert core.receive(4, frame(A, B), 3) == Verdict((2, numbers[1]))
        assert core.receive(4, frame(BROADCAST, B), 3) == Verdict((2, 5, numbers[1]))

    def test_hub_sends_it_everything_once(self) -> None:
        core = switch(2, hub=True)
        core.add_port(0, monitor=True)
        assert core.receive(1, frame(B, A), 1) == Verdict((2, 3))

    def test_flood_on_the_only_port_goes_there(self) -> None:
        core = switch(1)
        core.add_port(0, monitor=True)
        assert core.receive(1, frame(BROADCAST, A), 1) == Verdict((2,))

    def test_what_is_dropped_goes_nowhere(self) -> None:
        core = switch(2, max_frame=1518)
        core.add_port(0, monitor=True)
        for bad in (b"", frame(BROADCAST, A, 1519), frame(A, A)):
            assert core.receive(1, bad, 1).egress == ()

    def test_number_is_an_ordinary_port_afterwards(self) -> None:
        core = switch(1)
        core.add_port(0, monitor=True)
        core.remove_port(2, 1)
        assert core.add_port(1) == 2
        core.receive(2, frame(BROADCAST, B), 2)
        assert core.receive(1, frame(B, A), 3) == Verdict((2,))

    def test_no_address_is_restored_to_one(self) -> None:
        core = switch(1)
        core.add_port(0, monitor=True)
        core.restore([FdbEntry(A, 1, 1), FdbEntry(B, 2, 2)], 3)
        assert core.fdb(3) == [FdbEntry(A, 1, 1)]


class TestLearning:
    def test_learn_is_counted_and_reported_once(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 5)
        core.receive(1, frame(BROADCAST, A), 6)
        assert core.take_events() == [MacLearned(5, A, 1)]
        assert core.fdb(6) == [FdbEntry(A, 1, 6)]
        assert core.counters.learned == 1

    def test_station_move_takes_effect_at_once_and_is_reported(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 1)
        core.receive(2, frame(BROADCAST, A), 2)
        assert core.receive(3, frame(A, C), 3).egress == (2,)
        assert StationMoved(2, A, 2, 1) in core.take_events()
        assert (core.counters.learned, core.counters.moved) == (2, 1)
        core.remove_port(1, 4)
        assert A in [entry.mac for entry in core.fdb(4)]

    def test_full_fdb_refuses_counts_and_reports_the_change_only(self) -> None:
        core = switch(fdb_capacity=1)
        core.receive(1, frame(BROADCAST, A), 0)
        for now_ns in (1, 2, 3):
            assert core.receive(2, frame(A, B), now_ns).egress == (1,)
        assert core.counters.learn_refused == 3
        assert core.take_events() == [MacLearned(0, A, 1), FdbFull(1, 1)]

    def test_full_fdb_still_follows_the_stations_that_it_knows(self) -> None:
        core = switch(fdb_capacity=1)
        core.receive(1, frame(BROADCAST, A), 0)
        core.receive(2, frame(BROADCAST, A), 1)
        assert core.fdb(1) == [FdbEntry(A, 2, 1)]
        assert core.counters.learn_refused == 0

    def test_full_fdb_makes_room_by_age_and_is_reported_anew_when_full_again(self) -> None:
        core = switch(fdb_capacity=1)
        core.receive(1, frame(BROADCAST, A), 0)
        core.receive(2, frame(BROADCAST, B), 0)
        core.take_events()
        later = AGEING + 1
        core.receive(2, frame(BROADCAST, B), later)
        core.receive(3, frame(BROADCAST, C), later)
        assert core.take_events() == [MacAged(later, A, 1), MacLearned(later, B, 2), FdbFull(later, 1)]

    def test_fdb_without_room_for_anything_works_as_a_hub(self) -> None:
        core = switch(fdb_capacity=0)
        core.receive(2, frame(BROADCAST, B), 0)
        assert core.receive(1, frame(B, A), 1).egress == (2, 3)
        assert core.take_events() == [FdbFull(0, 0)]


class TestAgeing:
    def test_entry_lives_for_exactly_the_ageing_time(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 7)
        assert core.receive(2, frame(A, B), 7 + AGEING).egress == (1,)
        assert core.receive(2, frame(A, B), 7 + AGEING + 1).egress == (1, 3)
        assert MacAged(7 + AGEING + 1, A, 1) in core.take_events()
        assert core.counters.aged == 1

    def test_source_seen_again_after_its_age_is_learnt_anew(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 0)
        core.receive(2, frame(BROADCAST, A), AGEING + 1)
        assert core.take_events() == [
            MacLearned(0, A, 1),
            MacAged(AGEING + 1, A, 1),
            MacLearned(AGEING + 1, A, 2),
        ]
        assert (core.counters.moved, core.counters.learned) == (0, 2)

    def test_fdb_shows_the_living_only_and_changes_nothing(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 0)
        core.take_events()
        assert core.fdb(AGEING + 1) == []
        assert core.take_events() == []

    def test_timer_falls_on_the_sweep_after_the_oldest_dies(self) -> None:
        core = switch()
        assert core.get_timer() is None
        core.receive(1, frame(BROADCAST, A), 0)
        core.receive(1, frame(BROADCAST, B), SWEEP_TIME_NS - 2)
        assert core.get_timer() == AGEING + SWEEP_TIME_NS
        core.handle_timer(AGEING)
        assert len(core.fdb(AGEING)) == 2
        core.take_events()
        core.handle_timer(AGEING + SWEEP_TIME_NS)
        assert [event.mac for event in core.take_events() if isinstance(event, MacAged)] == [A, B]
        assert core.get_timer() is None


class TestUnknownUnicast:
    def test_reported_once_for_each_source_and_ageing_time(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 0)
        core.receive(2, frame(BROADCAST, B), 0)
        core.take_events()
        half = AGEING // 2
        for now_ns in (10, 20, half, AGEING + 10, AGEING + 11, AGEING + 12):
            core.receive(1, frame(C, A), now_ns)
        core.receive(2, frame(C, B), AGEING + 13)
        reported = [event for event in core.take_events() if isinstance(event, UnknownUnicast)]
        assert reported == [
            UnknownUnicast(10, A, C, 1),
            UnknownUnicast(AGEING + 11, A, C, 1),
            UnknownUnicast(AGEING + 13, B, C, 2),
        ]

    def test_not_reported_where_the_source_could_not_be_learnt(self) -> None:
        core = switch(fdb_capacity=0)
        core.receive(1, frame(C, A), 0)
        assert core.take_events() == [FdbFull(0, 0)]


class TestTakeover:
    def test_port_gets_the_number_that_it_is_to_have(self) -> None:
        core = switch(0, first_port_no=2)
        assert [core.add_port(0, 5), core.add_port(0), core.add_port(0, 3), core.add_port(0)] == [5, 2, 3, 4]
        assert core.take_events() == [PortAttached(0, number) for number in (5, 2, 3, 4)]

    @pytest.mark.parametrize("port_no", [2, 1, 0, -1])
    def test_number_that_is_taken_or_too_low_changes_nothing(self, port_no: int) -> None:
        core = switch(1, first_port_no=2)
        with pytest.raises(SwitchError, match=f"port {port_no} cannot be had"):
            core.add_port(0, port_no)
        assert core.ports() == [2]
        assert core.take_events() == []

    def test_restored_address_lives_as_long_as_it_would_have(self) -> None:
        core = switch()
        now_ns = 2 * AGEING
        core.restore([FdbEntry(A, 1, now_ns - AGEING), FdbEntry(B, 2, now_ns - 5)], now_ns)
        assert core.fdb(now_ns) == [FdbEntry(A, 1, now_ns - AGEING), FdbEntry(B, 2, now_ns - 5)]
        assert core.fdb(now_ns + 1) == [FdbEntry(B, 2, now_ns - 5)]
        # Nobody learns of what was known, and what ages is reported as ever.
        assert core.take_events() == []
        core.handle_timer(now_ns + 1)
        assert core.take_events() == [MacAged(now_ns + 1, A, 1)]
        assert core.receive(1, frame(B, C), now_ns + 1).egress == (2,)

    def test_restore_leaves_out_what_cannot_be(self) -> None:
        core = switch(2, fdb_capacity=2)
        core.receive(2, frame(BROADCAST, A), AGEING)
        entries = [FdbEntry(A, 1, AGEING - 1), FdbEntry(B, 9, AGEING), FdbEntry(B, 1, AGEING - 2)]
        core.restore([*entries, FdbEntry(C, 1, AGEING)], AGEING)
        # A is known better, port 9 is not there, and C finds no room.
        assert core.fdb(AGEING) == [FdbEntry(B, 1, AGEING - 2), FdbEntry(A, 2, AGEING)]

    def test_restore_forgets_the_dead_first(self) -> None:
        core = switch(1, fdb_capacity=1)
        core.receive(1, frame(BROADCAST, A), 0)
        core.take_events()
        core.restore([FdbEntry(B, 1, AGEING)], AGEING + 1)
        assert core.fdb(AGEING + 1) == [FdbEntry(B, 1, AGEING)]
        assert core.take_events() == [MacAged(AGEING + 1, A, 1)]


class TestFlush:
    def test_addresses_of_one_port_or_all_are_forgotten_without_an_event(self) -> None:
        core = switch()
        for port_no, source in ((1, A), (1, B), (2, C)):
            core.receive(port_no, frame(BROADCAST, source), 0)
        core.take_events()
        assert core.flush(1) == 2
        assert core.fdb(0) == [FdbEntry(C, 2, 0)]
        assert core.flush(3) == 0
        assert (core.flush(), core.flush()) == (1, 0)
        assert core.take_events() == []
        assert core.get_timer() is None
        assert core.counters.aged == 0

    def test_port_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(NoSuchPort):
            switch().flush(9)


class TestConfigure:
    def test_new_settings_hold_from_the_next_frame_on(self) -> None:
        core = switch()
        core.receive(2, frame(BROADCAST, B), 0)
        core.configure(SwitchConfig(hub=True, max_frame=60))
        assert core.receive(1, frame(B, A), 0).egress == (2, 3)
        assert core.receive(1, frame(B, A, 61), 0).drop is DropReason.OVERSIZE
        core.configure(SwitchConfig())
        assert core.receive(1, frame(B, A, 61), 0).egress == (2,)

    def test_ageing_time_counts_for_what_was_learnt_before(self) -> None:
        core = switch()
        core.receive(1, frame(BROADCAST, A), 0)
        core.receive(1, frame(BROADCAST, B), 50)
        core.configure(SwitchConfig(ageing_time_ns=10))
        assert core.fdb(60) == [FdbEntry(B, 1, 50)]
        assert core.get_timer() == SWEEP_TIME_NS
        core.handle_timer(60)
        assert core.fdb_size() == 1
        core.configure(SwitchConfig(ageing_time_ns=AGEING))
        assert core.get_timer() == AGEING + SWEEP_TIME_NS

    def test_smaller_fdb_forgets_the_oldest_and_a_larger_one_learns_again(self) -> None:
        core = switch()
        for now_ns, source in enumerate((A, B, C)):
            core.receive(1, frame(BROADCAST, source), now_ns)
        core.receive(1, frame(BROADCAST, A), 5)
        core.configure(SwitchConfig(fdb_capacity=1))
        assert core.fdb(5) == [FdbEntry(A, 1, 5)]
        assert core.receive(2, frame(BROADCAST, B), 6).egress == (1, 3)
        assert core.counters.learn_refused == 1
        core.configure(SwitchConfig(fdb_capacity=2))
        core.receive(2, frame(BROADCAST, B), 7)
        assert core.fdb(7) == [FdbEntry(A, 1, 5), FdbEntry(B, 2, 7)]

    def test_first_port_number_cannot_be_changed(self) -> None:
        core = switch()
        with pytest.raises(ValueError, match="first_port_no"):
            core.configure(SwitchConfig(first_port_no=2))
        assert core.config == SwitchConfig()
