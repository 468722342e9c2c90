"""Answers that are given again to a request that is sent again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from umlab.api.error import RequestError

#: Answers that are kept, whatever their age.
MAX_KEPT = 256


class AnswerMemory:
    """Runs what a key names once, and has its outcome for everybody who comes with that key later.

    The oldest key that is not at work any more is forgotten when there are too many.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[object, asyncio.Task[Any]]] = OrderedDict()

    async def run(
        self, key: str | None, request: object, work: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Any:
        """Return what the work returns, or returned when this key was seen first.

        Args:
            key: The caller's name for this request; without one the work is done.
            request: What is asked for.  A key stands for one request only.
            work: Is called at most once for a key.

        Raises:
            RequestError: The key stands for another request.
            Exception: What the work raises, or raised.
        """
        if key is None:
            return await work()
        known = self._kept.get(key)
        if known is None:
            # A task of its own: a caller who leaves does not take it from the others.
            task = asyncio.get_running_loop().create_task(work())
            task.add_done_callback(_retrieve)
            self._kept[key] = known = (request, task)
            self._forget()
        if known[0] != request:
            raise RequestError(
                "InvalidRequest", f"the idempotency key {key} was used for another request", {"key": key}
            )
        return await asyncio.shield(known[1])

    def _forget(self) -> None:
        for key in list(self._kept)[: max(0, len(self._kept) - MAX_KEPT)]:
            if self._kept[key][1].done():
                del self._kept[key]


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take a failure that nobody may be there for any more."""
    if not task.cancelled():
        task.exception()
