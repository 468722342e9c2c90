"""Properties of the engines: whatever happens to one, it does what the pure core would do.

Unlike the differential tests, which go through fixed scenarios, these look for a short one that fails.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.engines import ENGINES
from support.scenario import Profile, make_scenario
from support.scenario_run import compare
from umlab.switch.model import SECOND_NS, SwitchConfig

PROFILE = Profile(
    SwitchConfig(ageing_time_ns=5 * SECOND_NS, fdb_capacity=4, max_frame=2048, egress_queue_depth=2),
    most_frames=20,
    max_frames=(14, 1518, 2048, 9018),
    stops=True,
)


@pytest.mark.parametrize("kind", sorted(ENGINES))
def test_engine_is_equal_to_the_core(kind: str, count_scenario: Callable[[str], None]) -> None:
    @settings(max_examples=40)
    @given(st.randoms(use_true_random=False), st.integers(1, 40), st.booleans())
    def check(rng: random.Random, length: int, held: bool) -> None:
        compare(ENGINES[kind], PROFILE.config, make_scenario(rng, PROFILE, length), held=held)
        count_scenario(kind)

    check()
