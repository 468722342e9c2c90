"""VLANs in the forwarding core: classification, forms, and an FDB for each VLAN."""

from __future__ import annotations

import pytest

from support.vlan_cases import (
    BROADCAST,
    VLAN_CASES,
    A,
    B,
    C,
    VlanCase,
    access,
    plain,
    s_tagged,
    tagged,
    trunk,
)
from umlab.switch.core import SwitchCore
from umlab.switch.counters import DropReason
from umlab.switch.events import MacAged, MacLearned, StationMoved, UnknownUnicast
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import MirrorSession, PortConfig, SwitchConfig
from umlab.switch.vlan import STAG, PortVlan


def config(ports: dict[int, PortVlan], **others: int | bool) -> SwitchConfig:
    settings = {number: PortConfig(vlan) for number, vlan in ports.items()}
    return SwitchConfig(ports=settings, **others)  # type: ignore[arg-type]


def switch(told: SwitchConfig, count: int) -> SwitchCore:
    core = SwitchCore(told)
    for _ in range(count):
        core.add_port(0)
    core.take_events()
    return core


def out(core: SwitchCore, port_no: int, frame: bytes, now_ns: int = 0) -> dict[int, bytes] | DropReason:
    """Return what leaves where, or why nothing does."""
    verdict = core.receive(port_no, frame, now_ns)
    assert verdict.drop is None or not verdict.egress
    assert verdict.changed.keys() <= set(verdict.egress)
    leaving = {number: verdict.changed.get(number, frame) for number in verdict.egress}
    return leaving if verdict.drop is None else verdict.drop


def learnt(core: SwitchCore, now_ns: int = 0) -> set[tuple[int, bytes, int]]:
    return {(entry.vid, entry.mac, entry.port_no) for entry in core.fdb(now_ns)}


@pytest.mark.parametrize("case", VLAN_CASES, ids=lambda case: case.name)
def test_frame_leaves_where_its_vlan_is_and_as_each_port_is_told(case: VlanCase) -> None:
    core = switch(case.config, len(case.ports))
    assert out(core, 1, case.frame) == case.out
    counters = core.port_counters(1)
    if isinstance(case.out, DropReason):
        assert (counters.rx_frames, counters.drops) == (0, {case.out: 1})
        assert core.fdb(0) == []
    else:
        assert (counters.rx_frames, counters.rx_bytes, counters.drops) == (1, len(case.frame), {})


def test_what_is_not_changed_is_the_very_frame() -> None:
    """Engines send that to many ports without a copy."""
    core = switch(config({1: trunk("10"), 2: trunk("10"), 3: access(10), 4: access(10)}), 4)
    assert core.receive(1, tagged(plain(), 10, 3), 0).changed.keys() == {3, 4}
    assert core.receive(3, plain(), 0).changed.keys() == {1, 2}


class TestFdb:
    def test_same_address_in_two_vlans_is_two_stations(self) -> None:
        core = switch(config({1: access(10), 2: access(20), 3: trunk("10,20"), 4: trunk("10,20")}), 4)
        for port_no in (1, 2):
            core.receive(port_no, plain(source=B), 0)
        assert learnt(core) == {(10, B, 1), (20, B, 2)}
        # Neither has moved: each is where it was, in its VLAN.
        assert core.counters.moved == 0
        to_b = plain(destination=B)
        assert out(core, 3, tagged(to_b, 10)) == {1: to_b}
        assert out(core, 3, tagged(to_b, 20)) == {2: to_b}

    def test_address_is_unknown_in_the_other_vlan(self) -> None:
        core = switch(config({1: access(10), 2: access(20), 3: trunk("10,20"), 4: trunk("10,20")}), 4)
        core.receive(1, plain(source=B), 0)
        core.take_events()
        to_b = tagged(plain(destination=B), 20)
        assert out(core, 3, to_b, 1) == {2: plain(destination=B), 4: to_b}
        assert core.take_events() == [MacLearned(1, A, 3, 20), UnknownUnicast(1, A, B, 3, 20)]

    def test_unicast_has_the_form_of_its_port(self) -> None:
        ports = {1: access(10), 2: trunk("10", 20), 3: PortVlan.access(10, STAG), 4: trunk("10", tpid=STAG)}
        core = switch(config(ports), 4)
        core.receive(4, s_tagged(plain(source=B), 10), 0)
        core.receive(2, tagged(plain(source=C), 10), 0)
        assert out(core, 1, plain(destination=B)) == {4: s_tagged(plain(destination=B), 10)}
        assert out(core, 1, plain(destination=C)) == {2: tagged(plain(destination=C), 10)}
        assert out(core, 2, tagged(plain(destination=B, source=C), 10, 5)) == {
            4: s_tagged(plain(destination=B, source=C), 10, 5)
        }

    def test_same_port_is_of_the_same_vlan(self) -> None:
        core = switch(config({1: trunk("10,20"), 2: trunk("10,20")}), 2)
        core.receive(1, tagged(plain(source=B), 10), 0)
        assert out(core, 1, tagged(plain(destination=B), 10)) is DropReason.SAME_PORT
        assert out(core, 1, tagged(plain(destination=B), 20)) == {2: tagged(plain(destination=B), 20)}

    def test_station_moves_within_its_vlan_only(self) -> None:
        core = switch(config({1: trunk("10,20"), 2: trunk("10,20")}), 2)
        for vid in (10, 20):
            core.receive(1, tagged(plain(source=B), vid), 0)
        core.take_events()
        core.receive(2, tagged(plain(source=B), 20), 1)
        assert core.take_events() == [StationMoved(1, B, 2, 1, 20)]
        assert learnt(core) == {(10, B, 1), (20, B, 2)}

    def test_stations_age_and_are_flushed_in_every_vlan(self) -> None:
        core = switch(config({1: trunk("10,20"), 2: access(20)}, ageing_time_ns=100), 2)
        core.receive(1, tagged(plain(source=B), 10), 0)
        core.receive(1, tagged(plain(source=B), 20), 50)
        core.take_events()
        core.handle_timer(101)
        assert core.take_events() == [MacAged(101, B, 1, 10)]
        core.receive(2, plain(source=C), 101)
        assert core.flush(1) == 1
        assert learnt(core, 101) == {(20, C, 2)}
        core.remove_port(2, 102)
        assert core.fdb(102) == []

    def test_hub_stays_within_the_vlan(self) -> None:
        core = switch(config({1: access(10), 2: access(10), 3: access(20), 4: access(10)}, hub=True), 4)
        core.receive(2, plain(source=B), 0)
        assert out(core, 1, plain(destination=B)) == {2: plain(destination=B), 4: plain(destination=B)}

    def test_restored_address_belongs_to_its_vlan(self) -> None:
        core = switch(config({1: access(10), 2: trunk("10,20"), 3: trunk("10,20")}), 5)
        kept = [FdbEntry(B, 1, 3, 10), FdbEntry(B, 2, 4, 20), FdbEntry(C, 4, 5)]
        core.restore([*kept, FdbEntry(A, 1, 5, 20), FdbEntry(A, 1, 5), FdbEntry(A, 4, 5, 10)], 5)
        assert core.fdb(5) == kept
        assert out(core, 3, tagged(plain(destination=B), 20), 5) == {2: tagged(plain(destination=B), 20)}


class TestConfigure:
    def test_what_belongs_no_more_is_forgotten_and_nothing_else(self) -> None:
        told = {1: trunk("10,20,30"), 2: access(10), 3: access(20)}
        core = switch(config(told), 5)
        for vid in (10, 20, 30):
            core.receive(1, tagged(plain(source=B), vid), 0)
        core.receive(2, plain(source=C), 0)
        core.receive(4, plain(source=C), 0)
        core.receive(5, plain(source=A), 0)
        core.take_events()
        core.configure(config({1: trunk("20-40", 30), 2: access(20), 5: access(10)}))
        # 3 is transparent now, and nothing was learnt there; 5 is no more.
        assert learnt(core) == {(20, B, 1), (30, B, 1), (0, C, 4)}
        assert core.take_events() == []

    def test_forwarding_follows_at_once(self) -> None:
        core = switch(config({}), 4)
        assert out(core, 1, plain()) == {2: plain(), 3: plain(), 4: plain()}
        core.configure(config({1: access(10), 2: trunk("10")}))
        assert out(core, 1, plain()) == {2: tagged(plain(), 10)}
        assert out(core, 3, plain()) == {4: plain()}
        core.configure(config({2: trunk("10")}))
        assert out(core, 1, plain()) == {3: plain(), 4: plain()}
        core.configure(config({}))
        assert out(core, 1, plain()) == {2: plain(), 3: plain(), 4: plain()}

    def test_setting_goes_by_the_number_whatever_is_plugged_in(self) -> None:
        core = switch(config({2: access(10), 3: access(10)}), 2)
        assert out(core, 2, plain()) == {}
        core.add_port(0)
        assert out(core, 2, plain()) == {3: plain()}
        core.remove_port(3, 0)
        core.add_port(0, 3)
        assert out(core, 3, plain()) == {2: plain()}
        core.remove_port(2, 0)
        core.add_port(0, 2)
        assert out(core, 3, plain()) == {2: plain()}

    def test_what_cannot_be_changes_nothing(self) -> None:
        core = switch(config({1: access(10), 2: access(10)}), 2)
        core.receive(1, plain(source=B), 0)
        with pytest.raises(ValueError, match="first_port_no"):
            core.configure(SwitchConfig(first_port_no=2))
        assert out(core, 2, plain(destination=B)) == {1: plain(destination=B)}

    def test_new_destination_of_a_mirror_is_forgotten_where_it_was(self) -> None:
        core = switch(config({}), 3)
        core.receive(3, plain(source=B), 0)
        core.configure(SwitchConfig(mirrors=(MirrorSession("m", 3, frozenset({1}), egress=False),)))
        assert core.fdb(0) == []
        assert out(core, 2, plain(destination=B)) == {1: plain(destination=B)}


def test_monitor_gets_frames_of_every_vlan_as_they_came() -> None:
    core = switch(config({1: trunk("10"), 2: access(10), 3: access(20)}), 3)
    core.add_port(0, monitor=True)
    frame = tagged(plain(), 10)
    assert out(core, 1, frame) == {2: plain(), 4: frame}
    assert out(core, 3, plain(source=B)) == {4: plain(source=B)}
    assert out(core, 1, plain()) is DropReason.VLAN


def test_reserved_and_broadcast_addresses_are_of_a_vlan_like_any_other() -> None:
    core = switch(config({1: access(10), 2: access(10), 3: access(20)}), 3)
    for destination in (BROADCAST, bytes.fromhex("0180c2000000"), bytes.fromhex("01005e000001")):
        frame = plain(destination=destination)
        assert out(core, 1, frame) == {2: frame}
