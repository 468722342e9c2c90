"""Every engine against the pure core: the same frames out, the same events, counters and FDB."""

from __future__ import annotations

import pytest

from support.engines import ENGINES
from support.scenario import make_scenario, run_on_core, run_on_engine
from umlab._clock import ManualClock
from umlab.switch.counters import DropReason
from umlab.switch.model import SECOND_NS, SwitchConfig

CONFIGS = {
    "switch": SwitchConfig(ageing_time_ns=5 * SECOND_NS, max_frame=1518),
    "small": SwitchConfig(ageing_time_ns=5 * SECOND_NS, fdb_capacity=3, max_frame=9018),
    "hub": SwitchConfig(hub=True, max_frame=1518),
}
SEEDS = range(8)
LENGTH = 200


@pytest.mark.parametrize("kind", sorted(ENGINES))
@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("seed", SEEDS)
def test_engine_does_what_the_core_says(kind: str, name: str, seed: int) -> None:
    config = CONFIGS[name]
    steps = make_scenario(seed, config, LENGTH)
    expected = run_on_core(steps, config)
    clock = ManualClock()
    engine = ENGINES[kind](config, clock)
    engine.start()
    assert run_on_engine(steps, engine, clock, expected) == expected


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_scenarios_reach_what_they_are_to_compare(name: str) -> None:
    """Scenarios that never age, move, refuse or drop anything would compare nothing."""
    config = CONFIGS[name]
    outcomes = [run_on_core(make_scenario(seed, config, LENGTH), config) for seed in SEEDS]
    drops = {reason for outcome in outcomes for port in outcome.ports.values() for reason in port.drops}
    assert {DropReason.RUNT, DropReason.OVERSIZE} <= drops
    assert any(len(receivers) > 1 for outcome in outcomes for receivers in outcome.egress)
    kinds = {type(event).__name__ for outcome in outcomes for event in outcome.events}
    wanted = {"PortAttached", "PortDetached", "MacLearned", "MacAged", "StationMoved"}
    if config.hub:
        assert wanted <= kinds
        return
    assert DropReason.SAME_PORT in drops
    wanted.add("UnknownUnicast")
    assert wanted | ({"FdbFull"} if name == "small" else set()) <= kinds
    assert any(len(receivers) == 1 for outcome in outcomes for receivers in outcome.egress)
