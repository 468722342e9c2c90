"""Whether a guest hears the signals that are sent to a command in it: one that hangs does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from umlab.errors import StateError

#: Seconds that the guest's agent has for a signal.
HEARING_TIME = 10.0


class Hearing:
    """Signals of one command that its guest's agent has not heard yet."""

    def __init__(self) -> None:
        # When each was sent.
        self._sent: deque[float] = deque()
        self._limit: asyncio.Timeout | None = None

    def told(self) -> None:
        """Take note that a signal has been sent."""
        self._sent.append(asyncio.get_running_loop().time())
        self._changed()

    def heard(self) -> None:
        """Take note that the agent has heard one."""
        if self._sent:
            self._sent.popleft()
            self._changed()

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Have a block last only as long as signals are heard.

        Raises:
            StateError: One was not, in time.
        """
        limit = asyncio.timeout_at(self._deadline())
        try:
            async with limit:
                self._limit = limit
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise StateError(
                f"the guest hangs: its agent has not heard a signal for {HEARING_TIME:g} seconds"
            ) from None
        finally:
            self._limit = None

    def _changed(self) -> None:
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(self._deadline())

    def _deadline(self) -> float | None:
        return self._sent[0] + HEARING_TIME if self._sent else None
