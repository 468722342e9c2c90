"""Work that a signal ends in good order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heeded(numbers: Iterable[signal.Signals]) -> list[signal.Signals]:
    """Return those signals that our caller has not told us to ignore, as nohup(1) does."""
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


def run_interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end; SIGINT, SIGTERM and SIGHUP cancel it, so that it cleans up.

    One of them that our caller ignores stays ignored.

    Raises:
        typer.Exit: A signal came; the status is 128 + its number.
    """
    return asyncio.run(_run(work))


async def _run(work: Coroutine[Any, Any, T]) -> T:
    task = asyncio.ensure_future(work)
    received: list[int] = []

    def interrupt(number: int) -> None:
        received.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in heeded(_SIGNALS):
        loop.add_signal_handler(number, interrupt, number)
    try:
        return await task
    except asyncio.CancelledError:
        if received:
            raise typer.Exit(128 + received[0]) from None
        raise


@contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end the block, so that it cleans up.

    One of them that our caller ignores stays ignored.

    Raises:
        typer.Exit: A signal came; the status is 128 + its number.
    """

    def interrupt(number: int, _: object) -> None:
        raise typer.Exit(128 + number)

    before = {number: signal.signal(number, interrupt) for number in heeded(_SIGNALS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
