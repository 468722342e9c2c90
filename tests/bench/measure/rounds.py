"""Contenders take turns, round by round, because the machine's speed drifts.

A round whose baseline is more than 30 % off the median of the baselines was disturbed: it is repeated, and
counted as such.  The baseline is the first contender that can do what is measured.  Once it is seen that a
round is disturbed, nobody else is asked: the others' figures would not count.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

DISTURBED = 0.3
#: Baselines that must be known before one is said to be off.
LEAST_KNOWN = 3
#: Rounds that are repeated at most, as a multiple of the rounds that are wanted.
PATIENCE = 3

#: Figures by name, or why there are none.
Outcome = dict[str, float] | str
Round = dict[str, Outcome]


class Unable(Exception):
    """A contender cannot do what is measured; the text says why."""


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of a figure over the rounds."""

    median: float
    least: float
    greatest: float


@dataclass(frozen=True)
class Comparison:
    """What came out of the rounds of one load.

    Attributes:
        name: Short, for ``--only``.
        title: For the table.
        units: The unit of every figure, in the table's order; the first figure judges the rounds.
        wanted: Rounds that were asked for; a restless machine has given fewer.
        rounds: What each contender did in each round that counts.
        repeated: The disturbed rounds, of which some have a figure of the baseline alone.
    """

    name: str
    title: str
    units: dict[str, str]
    wanted: int
    rounds: list[Round] = field(default_factory=list)
    repeated: list[Round] = field(default_factory=list)

    @property
    def figure(self) -> str:
        """The figure that judges the rounds."""
        return next(iter(self.units))

    @property
    def contenders(self) -> list[str]:
        """Everybody who took part, in their order."""
        return list(self.rounds[0]) if self.rounds else []

    @property
    def baseline(self) -> str | None:
        """The first contender that has figures in every round."""
        return next((name for name in self.contenders if self.failure(name) is None), None)

    def failure(self, contender: str) -> str | None:
        """Return why a contender has no figures, or None if it has them in every round."""
        return next((each for each in (one[contender] for one in self.rounds) if isinstance(each, str)), None)

    def spread(self, contender: str, figure: str) -> Spread:
        """Return a contender's figure over the rounds."""
        return _spread([_value(one, contender, figure) for one in self.rounds])

    def ratio(self, contender: str, figure: str) -> Spread | None:
        """Return a contender's figure over the baseline's, round by round; None if a baseline's is 0."""
        if self.baseline is None:
            return None
        pairs = [(_value(one, contender, figure), _value(one, self.baseline, figure)) for one in self.rounds]
        return None if any(base == 0 for _, base in pairs) else _spread([own / base for own, base in pairs])


def compare(
    name: str,
    title: str,
    units: Mapping[str, str],
    contenders: Mapping[str, Callable[[], Mapping[str, float]]],
    rounds: int = 5,
) -> Comparison:
    """Run rounds, each contender in turn, until enough are undisturbed.

    Args:
        name: Short name of what is measured.
        title: One line for the table.
        units: Unit of every figure, by its name.  The first is compared to find disturbed rounds.
        contenders: By name, the baseline first; each call measures once and returns all the figures.  One
            that raises Unable is not asked again.
        rounds: How many undisturbed ones are wanted.
    """
    comparison = Comparison(name, title, dict(units), rounds)
    unable: dict[str, str] = {}
    while len(comparison.rounds) < rounds and len(comparison.repeated) < PATIENCE * rounds:
        print(f"{name}: round {len(comparison.rounds) + 1} of {rounds}", end="", file=sys.stderr)
        one = _round(comparison, contenders, unable)
        print(file=sys.stderr, flush=True)
        (comparison.rounds if len(one) == len(contenders) else comparison.repeated).append(one)
        if len(comparison.rounds) == rounds:
            _set_disturbed_aside(comparison)
    _set_disturbed_aside(comparison)
    return comparison


def _round(
    comparison: Comparison,
    contenders: Mapping[str, Callable[[], Mapping[str, float]]],
    unable: dict[str, str],
) -> Round:
    """Ask each contender, or all up to the baseline if that is off."""
    outcomes: Round = {}
    is_baseline = True
    for contender, measure in contenders.items():
        if contender not in unable:
            print(f" · {contender}", end="", file=sys.stderr, flush=True)
            try:
                outcomes[contender] = dict(measure())
            except Unable as error:
                unable[contender] = str(error)
            else:
                known = _values(comparison, contender)
                if is_baseline and len(known) >= LEAST_KNOWN:
                    value = _value(outcomes, contender, comparison.figure)
                    if _is_off(value, statistics.median([*known, value])):
                        break
                is_baseline = False
                continue
        outcomes[contender] = unable[contender]
    return outcomes


def _set_disturbed_aside(comparison: Comparison) -> None:
    baseline = comparison.baseline
    if baseline is None:
        return
    median = statistics.median(_values(comparison, baseline))
    for each in list(comparison.rounds):
        if _is_off(_value(each, baseline, comparison.figure), median):
            comparison.rounds.remove(each)
            comparison.repeated.append(each)


def _values(comparison: Comparison, contender: str) -> list[float]:
    """Return the figures of all rounds, also of those that are repeated.

    Should the machine have another speed by now, that is soon the usual one.
    """
    outcomes = [one.get(contender) for one in (*comparison.rounds, *comparison.repeated)]
    return [each[comparison.figure] for each in outcomes if isinstance(each, dict)]


def _is_off(value: float, median: float) -> bool:
    return abs(value - median) > DISTURBED * median


def _value(one: Round, contender: str, figure: str) -> float:
    outcome = one[contender]
    assert not isinstance(outcome, str)
    return outcome[figure]


def _spread(values: list[float]) -> Spread:
    return Spread(statistics.median(values), min(values), max(values))
