"""A loop in a thread that serves while a block lasts."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Self


class ServingThread:
    """Serves from the beginning of the block to its end, in a loop of its own.

    Attributes:
        loop: The loop.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def serving(self) -> AbstractAsyncContextManager[None]:
        """Return what serves while it is entered."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        self.loop = self._ready.result()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._leaving.set)
        self._thread.join()

    async def _run(self) -> None:
        self._leaving = asyncio.Event()
        try:
            async with self.serving():
                self._ready.set_result(asyncio.get_running_loop())
                await self._leaving.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(error)
            raise
