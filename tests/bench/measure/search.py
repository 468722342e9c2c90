"""The highest rate that still holds."""

from __future__ import annotations

from collections.abc import Callable

#: The bracket at which the search ends, as a ratio, and where it gives up.
FINE, LEAST = 1.08, 100.0


def highest_rate(holds: Callable[[float, bool], bool], guess: float) -> float:
    """Search for the highest rate at which nothing to speak of is lost.

    Args:
        holds: Tells whether a rate does; the second argument asks for the long test that confirms it.
        guess: Where to begin; a good one saves time and does not change what is found.

    Returns:
        A rate that was confirmed; 0 if none down to 100 is.
    """
    low, high, rate = 0.0, 0.0, guess
    while not (low and high and high / low < FINE):
        if holds(rate, False):
            low = rate
            rate = (low * high) ** 0.5 if high else rate * 1.25
        else:
            high = rate
            rate = (low * high) ** 0.5 if low else rate / 1.25
        if rate < LEAST:
            return 0
    step = FINE
    while not holds(low, True):
        low /= step
        # What holds for a moment may be far above what holds for long.
        step *= FINE
        if low < LEAST:
            return 0
    return low
