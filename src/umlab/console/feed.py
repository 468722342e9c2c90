"""Keeps the screens of many terminals up with what is printed, in a small part of a loop's time.

A guest may print far more than a screen in Python can take.  What a screen has not taken yet waits, 64 KiB
at most: of a guest that prints more than that, the oldest is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

from umlab.console.screen import Screen

#: Bytes that wait for a screen.
MAX_BEHIND = 64 * 1024
#: Bytes that a screen takes at a time: no guest can make those last long.
_PIECE = 64
#: Seconds of work for all screens together, and of rest after it.
_TURN_TIME = 0.002
_REST_TIME = 0.03


class ScreenFeed:
    """What all followers of one event loop share."""

    def __init__(self) -> None:
        self._waiting: deque[ScreenFollower] = deque()
        self._next: asyncio.TimerHandle | None = None

    def add(self, follower: ScreenFollower) -> None:
        """Have a screen fed, as long as something waits for it."""
        self._waiting.append(follower)
        self._rest()

    def _rest(self) -> None:
        if self._waiting and self._next is None:
            self._next = asyncio.get_running_loop().call_later(_REST_TIME, self._turn)

    def _turn(self) -> None:
        self._next = None
        end = time.monotonic() + _TURN_TIME
        while self._waiting and time.monotonic() < end:
            follower = self._waiting.popleft()
            if follower.step():
                self._waiting.append(follower)
        self._rest()


class ScreenFollower:
    """A screen and what it has not taken yet.

    Args:
        screen: The screen.
        feed: Who feeds it.
    """

    def __init__(self, screen: Screen, feed: ScreenFeed) -> None:
        self.screen = screen
        self._feed = feed
        self._behind = bytearray()
        self._queued = False

    @property
    def behind(self) -> bytes:
        """What the screen has not taken yet."""
        return bytes(self._behind)

    def receive(self, data: bytes) -> None:
        """Take what was printed."""
        self._behind += data
        if len(self._behind) > MAX_BEHIND:
            del self._behind[:-MAX_BEHIND]
            self.screen.forget_sequence()
        if not self._queued:
            self._queued = True
            self._feed.add(self)

    def step(self) -> bool:
        """Let the screen take a little; say whether more waits."""
        self.screen.feed(bytes(self._behind[:_PIECE]))
        del self._behind[:_PIECE]
        self._queued = bool(self._behind)
        return self._queued

    async def catch_up(self) -> None:
        """Wait until the screen has taken what waits now, or was passed over."""
        left = len(self._behind)
        while left > 0 and self._behind:
            end = time.monotonic() + _TURN_TIME
            while self._behind and left > 0 and time.monotonic() < end:
                self.screen.feed(bytes(self._behind[:_PIECE]))
                del self._behind[:_PIECE]
                left -= _PIECE
            await asyncio.sleep(0)
