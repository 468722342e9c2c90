"""Clocks: integer nanoseconds, read from the machine or advanced by hand.

Everything that needs the time takes a clock object, so that a test, a replay or virtual time can
stand in for the machine's.
"""

from __future__ import annotations

import time


class MonotonicClock:
    """The machine's monotonic clock."""

    __slots__ = ()

    def now_ns(self) -> int:
        """Return nanoseconds since an arbitrary instant, never going back."""
        return time.monotonic_ns()


class ManualClock:
    """A clock that stands still until it is advanced.

    Args:
        now_ns: The first reading, in nanoseconds.
    """

    __slots__ = ("_now_ns",)

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """Return the nanoseconds to which the clock was advanced."""
        return self._now_ns

    def advance(self, span_ns: int) -> None:
        """Move the clock forward by ``span_ns`` nanoseconds (not negative)."""
        assert span_ns >= 0
        self._now_ns += span_ns


Clock = MonotonicClock | ManualClock
