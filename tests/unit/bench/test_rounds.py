"""Rounds of a benchmark: turns, disturbed ones, contenders that cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from bench.measure.rounds import PATIENCE, Comparison, Spread, Unable, compare

UNITS = {"rate": "frames/s", "cpu": "us"}


def giving(*rates: float, calls: list[str] | None = None, name: str = "") -> Callable[[], dict[str, float]]:
    """Return a contender that measures these rates, the last one for ever."""
    rest: Iterator[float] = iter(rates)

    def measure() -> dict[str, float]:
        if calls is not None:
            calls.append(name)
        return {"rate": next(rest, rates[-1]), "cpu": 2.0}

    return measure


def unable(calls: list[str] | None = None) -> dict[str, float]:
    if calls is not None:
        calls.append("unable")
    raise Unable("too many guests")


def test_contenders_take_turns() -> None:
    calls: list[str] = []
    contenders = {name: giving(100, calls=calls, name=name) for name in "abc"}
    compare("name", "title", UNITS, contenders, 3)
    assert calls == list("abc" * 3)


def test_median_spread_and_ratio_are_those_of_the_rounds() -> None:
    contenders = {"base": giving(100, 110, 90), "ours": giving(300, 220, 360)}
    done = compare("name", "title", UNITS, contenders, 3)
    assert done.spread("base", "rate") == Spread(100, 90, 110)
    assert done.spread("ours", "rate") == Spread(300, 220, 360)
    # Round by round 3, 2 and 4, whatever the medians are.
    assert done.ratio("ours", "rate") == Spread(3, 2, 4)
    assert done.repeated == []


@pytest.mark.parametrize(("rate", "repeated"), [(69, 1), (71, 0), (129, 0), (131, 1)])
def test_round_whose_baseline_is_30_percent_off_is_repeated(rate: float, repeated: int) -> None:
    contenders = {"base": giving(100, rate, 100, 100, 100), "ours": giving(1, 2, 3, 4, 5, 6)}
    done = compare("name", "title", UNITS, contenders, 5)
    assert len(done.rounds) == 5
    assert [each["base"] for each in done.repeated] == [{"rate": rate, "cpu": 2.0}] * repeated
    # The whole round goes, not the baseline's part of it.
    assert done.spread("ours", "rate").greatest == 5 + repeated


def test_nobody_else_is_asked_once_a_round_is_seen_to_be_disturbed() -> None:
    calls: list[str] = []
    contenders = {
        "base": giving(100, 101, 99, 10, 1000, 100, 100, calls=calls, name="b"),
        "ours": giving(200, calls=calls, name="o"),
    }
    done = compare("name", "title", UNITS, contenders, 5)
    assert "".join(calls) == "bobobo" + "b" + "b" + "bobo"
    assert done.repeated == [{"base": {"rate": rate, "cpu": 2.0}} for rate in (10, 1000)]
    assert len(done.rounds) == 5


def test_machine_that_has_another_speed_from_now_on_is_not_waited_for() -> None:
    done = compare("name", "title", UNITS, {"base": giving(10, 10, 10, 100), "ours": giving(1)}, 5)
    assert [each["base"] for each in done.rounds] == [{"rate": 100, "cpu": 2.0}] * 5
    assert len(done.repeated) < PATIENCE * 5


def test_other_contenders_disturb_no_round() -> None:
    done = compare("name", "title", UNITS, {"base": giving(100), "ours": giving(1, 1000, 1)}, 3)
    assert done.repeated == []


def test_restless_machine_ends_with_fewer_rounds() -> None:
    rates = [100.0 if number % 2 else 1000.0 for number in range(100)]
    done = compare("name", "title", UNITS, {"base": giving(*rates)}, 4)
    assert len(done.rounds) < 4
    assert len(done.repeated) >= PATIENCE * 4


def test_contender_that_cannot_is_asked_once_and_others_go_on() -> None:
    calls: list[str] = []
    done = compare("name", "title", UNITS, {"c": lambda: unable(calls), "ours": giving(5)}, 3)
    assert calls == ["unable"]
    assert done.failure("c") == "too many guests"
    assert done.failure("ours") is None
    # The first that can is what the others are compared with.
    assert done.baseline == "ours"


def test_contender_that_fails_in_one_round_has_no_figures() -> None:
    rest = iter([{"rate": 1.0, "cpu": 1.0}])

    def once() -> dict[str, float]:
        if (figures := next(rest, None)) is None:
            raise Unable("gone")
        return figures

    done = compare("name", "title", UNITS, {"base": giving(100), "ours": once}, 3)
    assert done.failure("ours") == "gone"


def test_nobody_can() -> None:
    done = compare("name", "title", UNITS, {"c": unable, "ours": unable}, 2)
    assert done.baseline is None
    assert len(done.rounds) == 2


def test_ratio_to_nothing_is_none() -> None:
    done = Comparison("n", "t", UNITS, 1, [{"base": {"rate": 0.0}, "ours": {"rate": 1.0}}])
    assert done.ratio("ours", "rate") is None
