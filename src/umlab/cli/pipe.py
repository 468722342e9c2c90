"""Writing to a pipe whose reader may stall for as long as he likes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import stat
import threading
from collections.abc import Callable

_Job = tuple[bytes, asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class PipeWriter:
    """Writes to a descriptor from a thread of its own, so that signals and the clock are not kept waiting.

    A pipe is not made non-blocking for it: others may share its other properties.

    Made in the loop's thread.

    Args:
        fd: The descriptor, which stays the caller's.
        on_reader_left: Called when nobody reads a pipe any more, though nothing be written.
    """

    def __init__(self, fd: int, on_reader_left: Callable[[], None]) -> None:
        self._fd = fd
        self._on_reader_left = on_reader_left
        self._watched = stat.S_ISFIFO(os.fstat(fd).st_mode)
        if self._watched:
            # There is never anything to read, but its other end's end shows in the same way.
            asyncio.get_running_loop().add_reader(fd, self._see_reader_leave)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # Each is counted by one thread alone: the caller's, and the one that writes.
        self._asked = self._done = 0
        # A write that nobody reads does not hold up the end of the process.
        self._thread = threading.Thread(target=self._run, name="pipe", daemon=True)
        self._thread.start()

    async def write(self, data: bytes) -> None:
        """Write bytes, waiting until all are written.

        Raises:
            OSError: They cannot be written; BrokenPipeError where the reader is gone.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._asked += 1
        self._jobs.put((data, loop, done))
        await done

    def close(self) -> None:
        """Write no more."""
        self._unwatch()
        self._jobs.put(None)
        if self._done == self._asked:
            self._thread.join()

    def _see_reader_leave(self) -> None:
        self._unwatch()
        self._on_reader_left()

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            asyncio.get_running_loop().remove_reader(self._fd)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            data, loop, done = job
            failure = self._write(data)
            self._done += 1
            # The loop may have ended before the reader went on.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_settle, done, failure)

    def _write(self, data: bytes) -> OSError | None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            return error
        return None


def _settle(done: asyncio.Future[None], failure: OSError | None) -> None:
    if done.cancelled():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)
