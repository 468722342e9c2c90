"""Every engine against the pure core: the same frames out, the same events, counters and FDB."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from support.engines import ENGINES
from support.scenario import (
    LIMITED,
    WAYS,
    Attach,
    Garble,
    Inject,
    Profile,
    Send,
    Step,
    Stop,
    make_scenario,
)
from support.scenario_model import ModelSwitch, Observation
from support.scenario_run import Divergence, compare
from support.scenario_vlan import VIDS
from umlab.switch.core import LLDP_TYPE
from umlab.switch.counters import DropReason
from umlab.switch.events import EventsLost
from umlab.switch.model import SECOND_NS, SwitchConfig

CountScenario = Callable[[str], None]

AGEING_NS = 5 * SECOND_NS
PROFILES = {
    "switch": Profile(SwitchConfig(ageing_time_ns=AGEING_NS, max_frame=1518)),
    "small": Profile(
        SwitchConfig(ageing_time_ns=AGEING_NS, fdb_capacity=3, max_frame=9018),
        capacities=(0, 1, 2, 3, 4),
        most_frames=4,
    ),
    "hub": Profile(SwitchConfig(hub=True, max_frame=1518, first_port_no=7), most_frames=4),
    "jumbo": Profile(
        SwitchConfig(max_frame=65_535),
        most_frames=3,
        max_frames=(14, 1900, 2000, 2048, 9018, 65_534, 65_535),
        sizes=(60, 2047, 2048, 2049, 4096, 60_000),
    ),
    "bursts": Profile(SwitchConfig(max_frame=2048), most_frames=200, sizes=(14, 60, 64), stations=20),
    "queues": Profile(
        SwitchConfig(egress_queue_depth=2, max_frame=2100),
        ways=LIMITED,
        most_frames=30,
        max_frames=(1518, 2100),
        stops=True,
        depths=(1, 2, 8),
    ),
    "flood": Profile(
        SwitchConfig(ageing_time_ns=AGEING_NS, max_frame=9018, egress_queue_depth=8),
        least_ports=20,
        most_ports=22,
        most_frames=30,
        stations=30,
        max_frames=(1518, 9018),
        stops=True,
    ),
    "vlans": Profile(
        SwitchConfig(ageing_time_ns=AGEING_NS, max_frame=1518),
        most_frames=8,
        sizes=(15, 16, 17, 18, 60, 64, 1514),
        vlans=True,
    ),
    "vlan_buffers": Profile(
        SwitchConfig(max_frame=65_535),
        most_frames=4,
        max_frames=(2048, 9018, 65_534, 65_535),
        sizes=(60, *range(2040, 2054), 60_000),
        vlans=True,
    ),
    "vlan_queues": Profile(
        SwitchConfig(egress_queue_depth=2, max_frame=2100),
        ways=LIMITED,
        most_frames=30,
        max_frames=(1518, 2100),
        depths=(1, 2, 8),
        stops=True,
        vlans=True,
    ),
    "vlan_flood": Profile(
        SwitchConfig(ageing_time_ns=AGEING_NS, max_frame=9018, egress_queue_depth=8),
        least_ports=20,
        most_ports=22,
        most_frames=20,
        max_frames=(1518, 9018),
        stops=True,
        vlans=True,
    ),
    "storm": Profile(
        SwitchConfig(ageing_time_ns=AGEING_NS, max_frame=1518, fdb_capacity=400),
        ways=("connected", "seqpacket", "device"),
        most_ports=4,
        most_frames=400,
        stations=20_000,
        capacities=(400, 4000),
        sizes=(14, 60),
    ),
}
#: Of long scenarios.
SEEDS = range(8)
LENGTHS = {"storm": 80, "flood": 120, "vlan_flood": 120}
#: Of short ones whose first frames wait for the engine to begin.
HELD_SEEDS = range(100, 120)
HELD_LENGTH = 30


def scenario(name: str, seed: int) -> list[Step]:
    length = HELD_LENGTH if seed in HELD_SEEDS else LENGTHS.get(name, 200)
    return make_scenario(random.Random(f"{name} {seed}"), PROFILES[name], length)


@pytest.mark.parametrize("kind", sorted(ENGINES))
@pytest.mark.parametrize("name", sorted(PROFILES))
@pytest.mark.parametrize("held", [False, True], ids=["running", "held"])
def test_engine_does_what_the_core_says(
    kind: str, name: str, held: bool, count_scenario: CountScenario
) -> None:
    for seed in HELD_SEEDS if held else SEEDS:
        try:
            compare(ENGINES[kind], PROFILES[name].config, scenario(name, seed), held=held)
        except Divergence as error:
            error.add_note(f"scenario {name} {seed}")
            raise
        count_scenario(kind)


def observations(name: str) -> Iterator[tuple[Step, Observation]]:
    for seed in SEEDS:
        steps = scenario(name, seed)
        yield from zip(steps, ModelSwitch(PROFILES[name].config).run(steps), strict=False)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_scenarios_reach_what_they_are_to_compare(name: str) -> None:
    """Scenarios that never age, move, refuse or drop anything would compare nothing."""
    seen = list(observations(name))
    drops: Counter[DropReason] = Counter()
    kinds: Counter[str] = Counter()
    for _, each in seen:
        kinds.update(type(event).__name__ for event in each.events)
        for port in each.snapshot.ports.values():
            drops.update(port.drops)
    assert {DropReason.RUNT, DropReason.OVERSIZE, DropReason.SAME_PORT, DropReason.PEER_GONE} <= set(drops)
    wanted = {"PortAttached", "PortDetached", "MacLearned", "MacAged", "StationMoved", "UnknownUnicast"}
    if PROFILES[name].ways != LIMITED:
        wanted.add("LinkClosed")
    assert wanted | {"FdbFull"} <= set(kinds)
    assert any(len(each.received) == 1 for _, each in seen)
    assert any(len(each.received) > 1 for _, each in seen)
    if PROFILES[name].stops:
        assert drops[DropReason.TAIL] > 100
        assert max(max(each.snapshot.queued.values(), default=0) for _, each in seen) >= 8


def test_sizes_around_the_buffers_of_the_native_engine_are_all_sent() -> None:
    sizes = {
        len(frame)
        for name in PROFILES
        for step, _ in observations(name)
        if isinstance(step, Send)
        for frame in step.frames
    }
    assert set(range(1900, 2100)) <= sizes
    assert {0, 13, 14, 9018, 9019, 65_535, 65_536} <= sizes


def test_floods_and_bursts_are_as_wide_and_long_as_they_are_meant() -> None:
    assert max(len(each.received) for _, each in observations("flood")) >= 19
    longest = max(len(step.frames) for step, _ in observations("bursts") if isinstance(step, Send))
    assert longest > 100
    assert any(isinstance(step, Stop) for step, _ in observations("queues"))


def test_a_third_of_the_scenarios_has_streams_headers_or_monitors() -> None:
    seeds = (*SEEDS, *HELD_SEEDS)
    ways = [
        {step.way for step in scenario(name, seed) if isinstance(step, Attach)}
        for name in ("switch", "small", "hub", "flood", "vlans", "vlan_buffers", "vlan_flood")
        for seed in seeds
    ]
    newer = {"stream", "headed", "monitor"}
    count = len(seeds) * len(PROFILES)
    assert sum(bool(newer & each) for each in ways) > count / 3
    assert all(sum(way in each for each in ways) > count / 4 for way in newer)


def test_messages_without_their_header_are_sent_whole_and_cut() -> None:
    garbled = {
        len(step.message)
        for name in ("switch", "small", "hub", "vlans")
        for seed in SEEDS
        for step in scenario(name, seed)
        if isinstance(step, Garble)
    }
    assert {0, 12, 70} <= garbled, "nothing, one byte too few, and another header"


def test_events_are_lost_in_storms() -> None:
    lost = [event for _, each in observations("storm") for event in each.events if type(event) is EventsLost]
    assert len(lost) > 1


VLAN_PROFILES = [name for name, profile in sorted(PROFILES.items()) if profile.vlans]


@pytest.mark.parametrize("name", VLAN_PROFILES)
def test_scenarios_with_vlans_drop_learn_and_punt(name: str) -> None:
    seen = list(observations(name))
    drops: Counter[DropReason] = Counter()
    for _, each in seen:
        for port in each.snapshot.ports.values():
            drops.update(port.drops)
    assert {DropReason.VLAN, DropReason.RESERVED, DropReason.MIRROR} <= set(drops)
    assert len({entry.vid for _, each in seen for entry in each.fdb}) >= 4
    assert any(isinstance(step, Inject) for step, _ in seen)
    punts = [punt for _, each in seen for punt in each.punts]
    # Those that are copied, and those that are nobody else's.
    assert {punt.frame[12:14] == LLDP_TYPE for punt in punts} == {True, False}


def test_scenarios_have_every_vlan_and_more_punts_than_are_kept() -> None:
    seen = [each for name in VLAN_PROFILES for _, each in observations(name)]
    assert {entry.vid for each in seen for entry in each.fdb} == {0, *VIDS}
    assert {14, 2048} <= {len(punt.frame) for each in seen for punt in each.punts}
    assert any(each.snapshot.counters.punt_lost for each in seen)


def test_tags_are_put_in_taken_out_and_changed_on_the_way_to_every_kind_of_port() -> None:
    retagged: Counter[tuple[str, str, str]] = Counter()
    for name in VLAN_PROFILES:
        for seed in SEEDS:
            model = ModelSwitch(PROFILES[name].config)
            model.run(scenario(name, seed))
            retagged += model.retagged
    ways = set(WAYS) - {"monitor"}
    # What is taken out on the way to a trunk is of its native VLAN.
    wanted = set(itertools.product(("put in", "TPID", "VID", "taken out"), ("trunk", "hybrid"), ways))
    wanted.update(("taken out", "access", way) for way in ways)
    assert {key for key in wanted if not retagged[key]} == set()
