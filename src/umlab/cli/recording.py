"""Captures while they run: what comes is written, what is told is shown, until something ends them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from umlab.capture.merge import Merge
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.cli.pipe import PipeWriter
from umlab.client.capture import AsyncCapture
from umlab.errors import LabError

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Seconds that a capture has for its last words, which a stalled reader holds up.
_LAST_WORDS = 5.0


class Job(NamedTuple):
    """One capture: which lab is asked for what."""

    lab: str
    request: CaptureRequest


class Recording:
    """Some captures, written to one descriptor where no files are asked for.

    Args:
        jobs: The captures, begun together.
        show: Is told of each step of each of them.
        fd: Where blocks go, which stays the caller's.
        name: What that is, for errors.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        show: Callable[[int, CaptureProgress], None] = lambda number, progress: None,
        *,
        fd: int | None = None,
        name: str = "standard output",
    ) -> None:
        self._jobs = jobs
        self._show = show
        self._fd = fd
        self._name = name
        self._merge = Merge() if len(jobs) > 1 else None
        self._pipe: PipeWriter | None = None

    def run(self, duration: float | None = None) -> None:
        """Run until every capture has ended, the reader is gone, a signal comes, or for so many seconds.

        What is held is still written, and the last counts are told, unless that takes too long or a second
        signal comes.

        Raises:
            UmlabError: A capture cannot begin or go on, or nothing can be written.
        """
        asyncio.run(self._run(duration))

    async def _run(self, duration: float | None) -> None:
        #: Set when the end is wished for, and when it is to come at once.
        self._end, self._haste = asyncio.Event(), asyncio.Event()
        self._signalled = False
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._hear_signal)
        pipe = self._pipe = None if self._fd is None else PipeWriter(self._fd, self._lose_reader)
        try:
            async with AsyncExitStack() as stack:
                captures = [
                    await stack.enter_async_context(await AsyncCapture.open(*job)) for job in self._jobs
                ]
                await self._follow_all(captures, duration)
        finally:
            if pipe is not None:
                pipe.close()

    def _hear_signal(self) -> None:
        if self._signalled:
            self._haste.set()
        self._signalled = True
        self._end.set()

    def _lose_reader(self) -> None:
        """End without writing more: who reads has seen enough, and the counts alone are still waited for."""
        if self._pipe is not None:
            self._pipe = None
            self._end.set()

    async def _follow_all(self, captures: Sequence[AsyncCapture], duration: float | None) -> None:
        tasks = [
            asyncio.ensure_future(self._follow(number, capture)) for number, capture in enumerate(captures)
        ]
        everything = asyncio.gather(*tasks)
        try:
            await self._wait(everything, self._end, duration)
            if not everything.done():
                for capture in captures:
                    await capture.stop()
                await self._wait(everything, self._haste, _LAST_WORDS)
            if everything.done():
                everything.result()
            elif not self._haste.is_set():
                raise LabError(f"there was no end for {_LAST_WORDS:g} seconds; the last counts are missing")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(everything, *tasks, return_exceptions=True)

    @staticmethod
    async def _wait(everything: asyncio.Future[Any], wish: asyncio.Event, seconds: float | None) -> None:
        """Wait until everything is done, something is wished for, or for so long."""
        wished: asyncio.Future[Any] = asyncio.ensure_future(wish.wait())
        await asyncio.wait({everything, wished}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        wished.cancel()

    async def _follow(self, number: int, capture: AsyncCapture) -> None:
        async for item in capture:
            if isinstance(item, CaptureProgress):
                self._show(number, item)
            elif self._pipe is not None:
                await self._write(self._pipe, number, item)

    async def _write(self, pipe: PipeWriter, number: int, blocks: bytes) -> None:
        try:
            await pipe.write(blocks if self._merge is None else self._merge.add(number, blocks))
        except BrokenPipeError:
            self._lose_reader()
        except OSError as error:
            raise LabError(f"cannot write to {self._name}: {error.strerror}") from None
