"""The load of the benchmarks against the switches that it measures."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from bench.measure.bed import Bed, Load, bed
from bench.measure.extension import load
from bench.measure.rounds import Unable
from bench.measure.switch import SWITCHES, Switch
from support.deadline import wait_until
from support.engines import ENGINES, WHY_NOT_NATIVE
from support.process import is_gone
from support.require import require_program, unavailable

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

Measure = Callable[[Bed, float], dict[str, float]]

BASELINE = SWITCHES[0]
OURS = SWITCHES[2 if "native" in ENGINES else 3]


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    """The load is there."""
    try:
        load("_load")
    except SystemExit as error:
        unavailable(str(error))


@pytest.fixture(params=(BASELINE, OURS), ids=("c", "ours"))
def switch(request: pytest.FixtureRequest) -> Switch:
    assert isinstance(request.param, Switch)
    if request.param is BASELINE:
        require_program("uml_switch")
    return request.param


@pytest.fixture
def pair(switch: Switch) -> Iterator[Bed]:
    with bed(switch, Load(sources=100)) as at:
        yield at


def test_load_alone_loses_nothing_and_counts_exactly() -> None:
    module = load("_load")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        stream = module.Stream(left.fileno(), bytes(6), bytes(6), 64, 2_000)
        result = module.run([stream], [right.fileno()], 0.3, latency=True)
        assert 0 < stream.offered <= 602
        assert result["received"] == [stream.sent] == [stream.offered] == [len(result["latencies"])]
        # From when a frame was due: no clock of another kind, no time before it.
        assert 0 < result["latencies"][0] <= result["latencies"][-1] < 10e9
        # What an earlier run has left under way is not counted.
        left.send(bytes(64))
        assert module.run([], [right.fileno()], 0.01)["received"] == [0]


def test_pace_arrives(pair: Bed) -> None:
    def measured() -> bool:
        result = pair.run(0.2, rate=2_000, latency=True)
        # Whoever is kept from running meanwhile, loses.
        assert result["received"][0] == len(result["latencies"]) <= result["stream"].offered <= 402
        assert result["cpu"] < result["seconds"]
        return result["cpu"] > 0 and result["received"][0] > 100

    wait_until(measured, 20, "frames at a pace")


def test_window_keeps_so_many_frames_under_way_and_writes_off_what_is_lost() -> None:
    module = load("_load")
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with left, right:
        # Nobody reads: eight, and eight more whenever those are written off.
        stream = module.Stream(left.fileno(), bytes(6), bytes(6), 64, 0, 1, 8)
        module.run([stream], [], 0.003)
        assert stream.sent == 8
        module.run([stream], [right.fileno()], 0.1, sleep=True)
        assert stream.sent > 100


@pytest.mark.parametrize("measure", [Bed.saturate, Bed.saturate_from_asleep])
def test_saturation_counts_what_arrives(pair: Bed, measure: Measure) -> None:
    wait_until(lambda: _rate(pair, measure) > 500, 20, "a figure")


def test_flood_comes_to_every_receiver(switch: Switch) -> None:
    with bed(switch, Load(receivers=3)) as at:
        wait_until(lambda: min(at.run(0.2, rate=1_000)["received"]) > 50, 20, "frames at every receiver")


def test_our_switch_is_measured_beside_guests_that_misbehave() -> None:
    # The original crashes now and then when guests come and go.
    for measure in (Bed.beside_a_stopped_guest, Bed.beside_visitors):
        with bed(OURS, Load()) as at:
            wait_until(partial(lambda at, measure: _rate(at, measure) > 500, at, measure), 20, "a figure")
            assert at.memory()["resident"] > at.memory()["proportional"] > 0


def _rate(at: Bed, measure: Measure) -> float:
    try:
        figures = measure(at, 0.2)
    except Unable:
        return 0
    assert figures["cpu"] > 0
    assert 0 <= figures["loss"] < 100
    return figures["rate"]


def test_switch_that_has_gone_is_said(pair: Bed) -> None:
    os.kill(pair.at.pid, signal.SIGTERM)
    wait_until(lambda: is_gone(pair.at.pid), 10, "the switch's end")
    with pytest.raises(Unable, match="the switch is gone"):
        pair.saturate(0.1)


def test_core_alone_is_measured_and_frames_that_go_astray_are_noticed() -> None:
    if WHY_NOT_NATIVE:
        unavailable(WHY_NOT_NATIVE)
    forward = load("_core").forward
    left, right = b"\x02\0\0\0\0\1", b"\x02\0\0\0\0\2"
    assert forward([[right + left] * 64, [left + right] * 64], 0.01) > 10_000
    # To an address of the port that it comes from.
    with pytest.raises(RuntimeError, match="did not go to the other port"):
        forward([[left + left] * 64, [left + right] * 64], 0.01)
