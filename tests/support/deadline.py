"""Deadlines for tests that wait on real processes, scaled on slow machines.

A test never sleeps and hopes: it waits for something that it can name, until a deadline.  The
environment variable ``UMLAB_TEST_TIMEOUT_FACTOR`` (a positive number, default 1) stretches every one.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

FACTOR_VARIABLE = "UMLAB_TEST_TIMEOUT_FACTOR"
POLL_INTERVAL = 0.02


def scaled(seconds: float) -> float:
    """Return a span of seconds, stretched for the machine that runs the tests.

    Args:
        seconds: What a quiet two-core machine needs at most.

    Returns:
        ``seconds`` times ``UMLAB_TEST_TIMEOUT_FACTOR``.

    Raises:
        ValueError: The variable is not a positive, finite number.
    """
    factor = float(os.environ.get(FACTOR_VARIABLE, "1"))
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"{FACTOR_VARIABLE} must be a positive number, not {factor}")
    return seconds * factor


def deadline(seconds: float) -> float:
    """Return the instant, on ``time.monotonic``'s scale, that lies ``seconds`` (scaled) ahead."""
    return time.monotonic() + scaled(seconds)


def wait_until(predicate: Callable[[], T], seconds: float, what: str) -> T:
    """Poll until a predicate is true, and return what it returned.

    Args:
        predicate: Called at least once, then every 20 ms; must not block.
        seconds: The time limit before scaling.
        what: What is waited for, for the message.

    Raises:
        TimeoutError: The predicate stayed false until the deadline.
    """
    end = deadline(seconds)
    while True:
        last_chance = time.monotonic() >= end
        if result := predicate():
            return result
        if last_chance:
            raise TimeoutError(f"{what}: not within {scaled(seconds):g} s")
        time.sleep(POLL_INTERVAL)


async def wait_until_async(predicate: Callable[[], T], seconds: float, what: str) -> T:
    """Do as `wait_until` does without blocking the event loop that the predicate depends on."""
    end = deadline(seconds)
    while True:
        last_chance = time.monotonic() >= end
        if result := predicate():
            return result
        if last_chance:
            raise TimeoutError(f"{what}: not within {scaled(seconds):g} s")
        await asyncio.sleep(POLL_INTERVAL)
