"""Fuzz target: whatever guests send and the control side asks, the engine does what the pure core does.

It goes through real sockets, so it is slow; it is meant for the native engine in a sanitiser build, and
takes the Python engine where there is no other.

Run as ``python tests/fuzz/fuzz_engine.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

with atheris.instrument_imports(include=["umlab"]):
    from support.scenario import Profile, make_scenario
    from support.scenario_run import compare
    from umlab.engine.select import create_engine
    from umlab.switch.model import SECOND_NS, SwitchConfig

PROFILE = Profile(
    SwitchConfig(ageing_time_ns=5 * SECOND_NS, fdb_capacity=4, max_frame=2048, egress_queue_depth=2),
    most_frames=20,
    max_frames=(14, 1518, 2048, 9018, 65_535),
)


class FuzzedRandom(random.Random):
    """A generator whose draws are the fuzzer's."""

    def __init__(self, data: atheris.FuzzedDataProvider) -> None:
        super().__init__(0)
        self._data = data

    def random(self) -> float:
        """Return the next draw, 0 to 1."""
        return self._data.ConsumeProbability()

    def getrandbits(self, k: int) -> int:
        """Return the next draw of ``k`` bits."""
        return self._data.ConsumeIntInRange(0, (1 << k) - 1)


def fuzz_one(data: bytes) -> None:
    """Make a scenario of one input and run it."""
    rng = FuzzedRandom(atheris.FuzzedDataProvider(data))
    held = rng.random() < 0.5
    compare(create_engine, PROFILE.config, make_scenario(rng, PROFILE, 1 + len(data) // 40), held=held)


if __name__ == "__main__":
    atheris.Setup(sys.argv, fuzz_one)
    atheris.Fuzz()
