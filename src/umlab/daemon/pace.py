"""How often one guest is asked: everybody's requests share one pace, so that no guest is starved.

A guest has one processor, and what it answers on its console it does not compute for its programs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from umlab._clock import Clock, MonotonicClock
from umlab.errors import GuestBusy

#: Requests a second in the long run, and how many may come at once before that counts.
RATE = 50
BURST = 50
#: Callers that are served or wait; one more is refused.
MAX_CALLERS = 64
#: Seconds after which a refused caller may try again.
RETRY_AFTER = 1.0

_INTERVAL_NS = 1_000_000_000 // RATE


class Pace:
    """The pace of one guest.

    Args:
        umid: The guest, for errors.
        clock: Tells the time.
    """

    def __init__(self, umid: str, clock: Clock | None = None) -> None:
        self._umid = umid
        self._clock = clock or MonotonicClock()
        #: When nobody would have to wait any more: the generic cell rate algorithm's next arrival.
        self._idle_ns = 0
        self._callers = 0

    @contextlib.contextmanager
    def caller(self) -> Iterator[None]:
        """Be one of the callers while the context lasts.  Raises GuestBusy."""
        if self._callers >= MAX_CALLERS:
            raise self.refusal()
        self._callers += 1
        try:
            yield
        finally:
            self._callers -= 1

    def refusal(self) -> GuestBusy:
        """Return the error for a caller who cannot be served."""
        return GuestBusy(self._umid, self._callers, RETRY_AFTER)

    def reserve(self) -> float:
        """Take the next turn and return in how many seconds it is."""
        now_ns = self._clock.now_ns()
        self._idle_ns = max(self._idle_ns, now_ns) + _INTERVAL_NS
        return max(0, self._idle_ns - now_ns - BURST * _INTERVAL_NS) / 1e9

    async def turn(self) -> None:
        """Wait for the next turn to send one request."""
        if wait := self.reserve():
            await asyncio.sleep(wait)
