"""The search for the highest rate without loss."""

from __future__ import annotations

import pytest

from bench.measure.search import FINE, highest_rate


@pytest.mark.parametrize("limit", [500, 65_000, 227_000, 1_000_000])
@pytest.mark.parametrize("guess", [1_000, 65_000, 900_000])
def test_rate_below_the_limit_is_found(limit: float, guess: float) -> None:
    found = highest_rate(lambda rate, _: rate <= limit, guess)
    assert limit / FINE <= found <= limit


def test_good_guess_takes_few_probes() -> None:
    probes: list[float] = []

    def holds(rate: float, confirm: bool) -> bool:
        probes.append(rate)
        return rate <= 65_000

    highest_rate(holds, 60_000)
    assert len(probes) <= 7


def test_rate_is_confirmed_by_the_long_test() -> None:
    confirmed: list[float] = []

    def holds(rate: float, confirm: bool) -> bool:
        if confirm:
            confirmed.append(rate)
        return rate <= (50_000 if confirm else 60_000)

    found = highest_rate(holds, 60_000)
    assert found == confirmed[-1]
    assert 50_000 / FINE <= found <= 50_000


@pytest.mark.parametrize(
    "holds", [lambda rate, confirm: False, lambda rate, confirm: not confirm and rate < 200]
)
def test_nothing_holds(holds: object) -> None:
    assert callable(holds)
    assert highest_rate(holds, 1_000) == 0
