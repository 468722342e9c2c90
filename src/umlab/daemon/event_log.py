"""The events of a lab: numbered, kept for a while, read by any number of listeners at their own speed.

Nobody who reads slowly, or not at all, costs more than his place: events wait in one ring for all, each
encoded once, and a listener that the ring has overtaken is told how many it has lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

#: Events that are kept for listeners that come late or read slowly.
MAX_KEPT = 8192
#: Seconds between the first event that waits and the waking of listeners: what comes in between goes
#: out together.
GATHER_TIME = 0.02


@dataclass(frozen=True, slots=True)
class Batch:
    """Events that a listener has not seen.

    Attributes:
        lost: Events between the last ones and these that are kept no more.
        first: Number of the first of ``records``.
        records: JSON texts, in order.
    """

    lost: int
    first: int
    records: tuple[str, ...]


class EventLog:
    """All events of one daemon.

    Attributes:
        epoch: Tells the numbers of this daemon from those of an earlier one.
        subscribers: Are given each record in turn, at once.
    """

    def __init__(self) -> None:
        self.subscribers: list[Callable[[dict[str, Any]], None]] = []
        self.epoch = f"{time.time_ns():x}"
        self._kept: deque[str] = deque(maxlen=MAX_KEPT)
        #: Number of the next event; the oldest kept one is ``_next - len(_kept)``.
        self._next = 1
        self._changed: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._batch = Batch(0, 1, ())

    @property
    def next_number(self) -> int:
        """The number that the next event will have, from 1."""
        return self._next

    @property
    def closed(self) -> bool:
        """Whether no more events will come."""
        return self._closed

    def publish(self, record: dict[str, Any]) -> None:
        """Keep an event; a record has ``event``, its kind, and is JSON-ready."""
        record = record | {"at": round(time.time(), 6)}
        self._kept.append(json.dumps(record, separators=(",", ":")))
        self._next += 1
        for subscriber in self.subscribers:
            subscriber(record)
        if self._changed is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER_TIME, self._wake)

    def close(self) -> None:
        """Let every listener's wait end."""
        self._closed = True
        self._wake()

    def since(self, number: int) -> Batch:
        """Return the events from a number on; a number from the future counts as the next one.

        Listeners that are level with each other share one batch.
        """
        number = max(1, min(number, self._next))
        oldest = self._next - len(self._kept)
        first = max(number, oldest)
        batch = self._batch
        if batch.lost or batch.first != first or first + len(batch.records) != self._next:
            skip = first - oldest
            kept = self._kept
            batch = Batch(0, first, tuple(kept[index] for index in range(skip, len(kept))))
            self._batch = batch
        return batch if first == number else Batch(first - number, first, batch.records)

    async def wait(self, number: int) -> None:
        """Wait until an event of this number exists, or the log is closed."""
        while number >= self._next and not self._closed:
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._changed)

    def _wake(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._changed is not None:
            changed, self._changed = self._changed, None
            if not changed.done():
                changed.set_result(None)
