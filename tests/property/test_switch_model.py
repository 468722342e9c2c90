"""The core against a switch made of one set: slow, without order or indexes, and plainly right."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from umlab.switch.core import SWEEP_TIME_NS, SwitchCore, Verdict
from umlab.switch.counters import DropReason, SwitchCounters
from umlab.switch.events import UnknownUnicast
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SwitchConfig

AGEING = 10
CAPACITY = 4
MAX_FRAME = 64
#: Two of them have the group bit.
MACS = [bytes([first, 0, 0, 0, 0, last]) for first in (0, 2, 4, 1, 3) for last in (0, 1)]

macs = st.sampled_from(MACS)
sizes = st.sampled_from([0, 13, 14, 60, MAX_FRAME, MAX_FRAME + 1])


class Station(NamedTuple):
    mac: bytes
    port_no: int
    seen: int


class SetSwitch:
    """What a switch does, said in sets."""

    def __init__(self, hub: bool) -> None:
        self.hub = hub
        self.capacity = CAPACITY
        self.now = 0
        self.ports: set[int] = set()
        self.stations: set[Station] = set()
        self.counters = SwitchCounters()

    def station(self, mac: bytes) -> Station | None:
        return next((each for each in self.stations if each.mac == mac), None)

    def age(self) -> None:
        living = {each for each in self.stations if self.now - each.seen <= AGEING}
        self.counters.aged += len(self.stations - living)
        self.stations = living

    def remove_port(self, port_no: int) -> None:
        self.ports.remove(port_no)
        self.stations = {each for each in self.stations if each.port_no != port_no}

    def receive(self, port_no: int, frame: bytes) -> Verdict:
        if len(frame) < 14:
            return Verdict((), DropReason.RUNT)
        if len(frame) > MAX_FRAME:
            return Verdict((), DropReason.OVERSIZE)
        others = Verdict(tuple(sorted(self.ports - {port_no})))
        self.age()
        self.learn(frame[6:12], port_no)
        known = self.station(frame[:6])
        if known is None or frame[0] & 1 or self.hub:
            return others
        return Verdict((), DropReason.SAME_PORT) if known.port_no == port_no else Verdict((known.port_no,))

    def learn(self, mac: bytes, port_no: int) -> None:
        if mac[0] & 1:
            return
        known = self.station(mac)
        if known is None and len(self.stations) >= self.capacity:
            self.counters.learn_refused += 1
            return
        self.counters.learned += known is None
        self.counters.moved += known is not None and known.port_no != port_no
        self.stations = (self.stations - {known}) | {Station(mac, port_no, self.now)}


class SwitchAgainstSet(RuleBasedStateMachine):
    """Drives both with the same frames, ports and times, and compares whatever can be seen."""

    hub = False

    def __init__(self) -> None:
        super().__init__()
        self.model = SetSwitch(self.hub)
        self.core = SwitchCore(
            SwitchConfig(hub=self.hub, ageing_time_ns=AGEING, fdb_capacity=CAPACITY, max_frame=MAX_FRAME)
        )
        self.unknown_reports: dict[bytes, int] = {}

    @rule()
    def add_port(self) -> None:
        port_no = self.core.add_port(self.model.now)
        assert port_no not in self.model.ports
        assert set(range(1, port_no)) <= self.model.ports
        self.model.ports.add(port_no)

    @precondition(lambda self: self.model.ports)
    @rule(data=st.data())
    def remove_port(self, data: st.DataObject) -> None:
        port_no = data.draw(st.sampled_from(sorted(self.model.ports)))
        self.take_events()
        self.core.remove_port(port_no, self.model.now)
        # Whoever attaches anew starts anew, reports included.
        for station in self.model.stations:
            if station.port_no == port_no:
                self.unknown_reports.pop(station.mac, None)
        self.model.remove_port(port_no)

    @precondition(lambda self: self.model.ports)
    @rule(data=st.data(), dst=macs, src=macs, size=sizes)
    def receive(self, data: st.DataObject, dst: bytes, src: bytes, size: int) -> None:
        port_no = data.draw(st.sampled_from(sorted(self.model.ports)))
        frame = (dst + src).ljust(size, b"\0")[:size]
        counters = self.core.port_counters(port_no)
        before = counters.rx_frames + sum(counters.drops.values())
        assert self.core.receive(port_no, frame, self.model.now) == self.model.receive(port_no, frame)
        assert counters.rx_frames + sum(counters.drops.values()) == before + 1

    @precondition(lambda self: self.model.ports)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        port_no = data.draw(st.none() | st.sampled_from(sorted(self.model.ports)))
        gone = {each for each in self.model.stations if port_no in (None, each.port_no)}
        assert self.core.flush(port_no) == len(gone)
        self.forget(gone)

    @rule(capacity=st.integers(0, CAPACITY + 2))
    def configure(self, capacity: int) -> None:
        self.handle_timer()
        before = self.core.fdb(self.model.now)
        self.model.capacity = capacity
        self.core.configure(replace(self.core.config, fdb_capacity=capacity))
        # Those that were seen last stay.
        kept = before[max(0, len(before) - capacity) :]
        assert self.core.fdb(self.model.now) == kept
        macs = {entry.mac for entry in kept}
        self.forget({each for each in self.model.stations if each.mac not in macs})

    @rule()
    def hand_over(self) -> None:
        living = self.core.fdb(self.model.now)
        self.handle_timer()
        self.core.flush()
        self.core.restore(living, self.model.now)
        assert self.core.fdb(self.model.now) == living
        # A report belongs to what was forgotten.
        self.take_events()
        self.unknown_reports.clear()

    def forget(self, stations: set[Station]) -> None:
        self.take_events()
        self.model.stations -= stations
        for each in stations:
            self.unknown_reports.pop(each.mac, None)

    @rule(span=st.sampled_from([1, 2, AGEING // 2, AGEING, AGEING + 1]))
    def pass_time(self, span: int) -> None:
        self.model.now += span

    @rule()
    def handle_timer(self) -> None:
        self.core.handle_timer(self.model.now)
        self.model.age()
        assert (self.core.get_timer() is None) == (not self.model.stations)

    @rule()
    def take_events(self) -> None:
        for event in self.core.take_events():
            if isinstance(event, UnknownUnicast):
                last = self.unknown_reports.get(event.source)
                assert last is None or event.at_ns - last > AGEING
                self.unknown_reports[event.source] = event.at_ns
            assert not (self.hub and isinstance(event, UnknownUnicast))

    @invariant()
    def the_fdb_is_the_set(self) -> None:
        entries = self.core.fdb(self.model.now)
        living = {each for each in self.model.stations if self.model.now - each.seen <= AGEING}
        assert {Station(entry.mac, entry.port_no, entry.last_seen_ns) for entry in entries} == living
        assert entries == sorted(entries, key=_by_age)
        assert self.core.counters == self.model.counters

    @invariant()
    def the_timer_comes_when_the_oldest_has_aged(self) -> None:
        at_ns = self.core.get_timer()
        assert (at_ns is None) == (not self.model.stations)
        if at_ns is not None:
            expiry = min(each.seen for each in self.model.stations) + AGEING + 1
            assert expiry <= at_ns < expiry + SWEEP_TIME_NS


class HubAgainstSet(SwitchAgainstSet):
    """The same without look-ups."""

    hub = True


def _by_age(entry: FdbEntry) -> int:
    return entry.last_seen_ns


TestSwitchAgainstSet = SwitchAgainstSet.TestCase
TestSwitchAgainstSet.settings = settings(max_examples=150, stateful_step_count=60)
TestHubAgainstSet = HubAgainstSet.TestCase
TestHubAgainstSet.settings = settings(max_examples=25, stateful_step_count=30)
