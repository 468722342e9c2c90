"""One command in many guests of labs at once, without input."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from umlab.cli.exit_status import EXIT_OWN_FAILURE, EXIT_TIMEOUT
from umlab.cli.guest_choice import Choice
from umlab.cli.pipe import PipeWriter
from umlab.client.aio import AsyncClient
from umlab.client.exec import ExecOrder
from umlab.errors import CommandTimeout, UmlabError
from umlab.guest.console import escape

#: Guests at a time.
CONCURRENCY = 16
#: Bytes of a line; a longer one is shown in parts.
_MAX_LINE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ending:
    """How a command in one guest ended.

    Attributes:
        status: Its exit status, or 124 and 125 for failures of ours.
        stdout: Its output, where that is gathered.
        stderr: The same of its errors.
        error: Why it has no status of its own.
    """

    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    error: UmlabError | None = None

    def record(self, choice: Choice) -> dict[str, Any]:
        """Return it for programs; bytes that are no UTF-8 become U+FFFD."""
        stdout, stderr = (each.decode("utf-8", "replace") for each in (self.stdout, self.stderr))
        record = {"lab": choice.lab, "guest": choice.guest, "status": self.status}
        record |= {"stdout": stdout, "stderr": stderr}
        return record if self.error is None else record | {"error": str(self.error)}


class Lines:
    """Output of several guests in whole lines, each behind its guest's name.

    Args:
        fd: Where to.
        on_reader_left: Called when nobody reads that any more.
    """

    def __init__(self, fd: int, on_reader_left: Callable[[], None]) -> None:
        self._pipe = PipeWriter(fd, on_reader_left)
        self._is_shown = os.isatty(fd)
        self._rests: dict[str, bytes] = {}

    async def write(self, label: str, data: bytes) -> None:
        """Write the lines that are whole now.  Raises OSError."""
        *lines, rest = (self._rests.get(label, b"") + data).split(b"\n")
        while len(rest) > _MAX_LINE:
            lines.append(rest[:_MAX_LINE])
            rest = rest[_MAX_LINE:]
        self._rests[label] = rest
        if lines:
            await self._pipe.write(b"".join(self._line(label, line) for line in lines))

    async def end(self, label: str) -> None:
        """Write what a guest has left unfinished.  Raises OSError."""
        if rest := self._rests.pop(label, b""):
            await self._pipe.write(self._line(label, rest))

    def close(self) -> None:
        """Write no more."""
        self._pipe.close()

    def _line(self, label: str, line: bytes) -> bytes:
        text = escape(line.removesuffix(b"\r")).encode() if self._is_shown else line
        return label.encode() + b": " + text + b"\n"


async def gather(
    choices: Sequence[Choice],
    order: ExecOrder,
    timeout: float | None,  # noqa: ASYNC109
) -> AsyncIterator[tuple[Choice, Ending]]:
    """Run a command in guests and return how each ended, the first to end first."""

    async def run(choice: Choice, client: AsyncClient) -> Ending:
        async with await client.open_exec(choice.guest, order) as running:
            result = await running.result(None)
        return Ending(result.status, result.stdout, result.stderr)

    async with _tasks(choices, order, timeout, run) as tasks:
        waiting = set(tasks)
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield tasks[task], task.result()


async def stream(
    choices: Sequence[Choice],
    order: ExecOrder,
    timeout: float | None,  # noqa: ASYNC109
) -> int:
    """Run a command in guests, show what they write, and return the highest status.

    Raises:
        BrokenPipeError: Nobody reads standard output.
    """
    everything, left = asyncio.current_task(), asyncio.Event()
    assert everything is not None

    def leave() -> None:
        left.set()
        everything.cancel()

    output, errors = Lines(1, leave), Lines(2, lambda: None)
    places = {"stdout": output, "stderr": errors}

    async def run(choice: Choice, client: AsyncClient) -> Ending:
        async with await client.open_exec(choice.guest, order) as running:
            try:
                while (piece := await running.read()) is not None:
                    await places[piece.stream].write(choice.label, piece.data)
            finally:
                for lines in places.values():
                    await lines.end(choice.label)
        assert running.status is not None
        return Ending(running.status)

    try:
        async with _tasks(choices, order, timeout, run) as tasks:
            statuses = []
            for task in asyncio.as_completed(tasks):
                ending = await task
                statuses.append(ending.status)
            for task, choice in tasks.items():
                if (error := task.result().error) is not None:
                    await errors.write(choice.label, f"umlab: {error}\n".encode())
            return max(statuses)
    except asyncio.CancelledError:
        if left.is_set():
            raise BrokenPipeError from None
        raise
    finally:
        output.close()
        errors.close()


@asynccontextmanager
async def _tasks(
    choices: Sequence[Choice],
    order: ExecOrder,
    timeout: float | None,  # noqa: ASYNC109
    run: Callable[[Choice, AsyncClient], Awaitable[Ending]],
) -> AsyncIterator[dict[asyncio.Task[Ending], Choice]]:
    """Have a task for each guest, which returns how it ended whatever happened."""
    places = asyncio.Semaphore(CONCURRENCY)

    async def end(choice: Choice) -> Ending:
        try:
            async with places, asyncio.timeout(timeout), AsyncClient(choice.lab) as client:
                return await run(choice, client)
        except TimeoutError:
            return Ending(EXIT_TIMEOUT, error=CommandTimeout(choice.guest, order.text, timeout or 0))
        except UmlabError as error:
            return Ending(EXIT_OWN_FAILURE, error=error)

    tasks = {asyncio.create_task(end(choice)): choice for choice in choices}
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
