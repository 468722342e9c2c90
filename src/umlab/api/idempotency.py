"""Answers that are given again to a request that is sent again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from typing import Any

from umlab.api.error import RequestError

#: Answers that are kept, whatever their age.
MAX_KEPT = 256
#: Characters of text in them; a guest may have answered with megabytes.
MAX_KEPT_TEXT = 16 << 20


class AnswerMemory:
    """Runs what a key names once, and has its outcome for everybody who comes with that key later.

    The oldest key that is not at work any more is forgotten when there are too many, or too much text.
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
            task.add_done_callback(lambda _: self._forget())
            self._kept[key] = known = (request, task)
            self._forget()
        if known[0] != request:
            raise RequestError(
                "InvalidRequest", f"the idempotency key {key} was used for another request", {"key": key}
            )
        return await asyncio.shield(known[1])

    def _forget(self) -> None:
        over = len(self._kept) - MAX_KEPT
        done = {key: _text(task) for key, (_, task) in self._kept.items() if task.done()}
        text = sum(done.values())
        for key, size in done.items():
            if over <= 0 and text <= MAX_KEPT_TEXT:
                return
            del self._kept[key]
            over -= 1
            text -= size


def _text(task: asyncio.Task[Any]) -> int:
    """Return the characters of an outcome, a failure's too; nobody else may be there any more to take it."""
    if task.cancelled():
        return 0
    error = task.exception()
    values = (task.result(),) if error is None else error.args
    return sum(len(value) for value in values if isinstance(value, str))
