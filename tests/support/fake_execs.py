"""Commands in guests that there are not: a few words that a test knows, nothing of this machine's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any

from support.deadline import wait_until_async
from umlab.daemon.exec_order import ExecOrder
from umlab.daemon.guest_exec import GuestExecs
from umlab.errors import GuestFailed, StateError, UmlabError
from umlab.guest.inside.hearing import Hearing
from umlab.guest.inside.session import Session

if TYPE_CHECKING:
    from support.fake_lab import FakeLab

_QUEUED = 16


class FakeSession(Session):
    """A command that is a coroutine of :data:`COMMANDS`.

    Attributes:
        order: What was asked for.
        released: Whether whoever asked has done with it.
        pieces: The sizes of the pieces of input that came.
        signals: The names of the signals that came; `stubborn` ends of none, `deaf` hears none.
    """

    def __init__(self, order: ExecOrder) -> None:
        self.order = order
        self.hearing = Hearing()
        self.released = False
        self.pieces: list[int] = []
        self.signals: list[str] = []
        self.typed: asyncio.Queue[bytes] = asyncio.Queue(1)
        self.windows: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self._streams: dict[int, asyncio.Queue[bytes | UmlabError]] = {
            1: asyncio.Queue(_QUEUED),
            2: asyncio.Queue(_QUEUED),
        }
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._run = asyncio.create_task(self._play())

    async def put(self, stream: int, data: bytes) -> None:
        """Write something, as the command."""
        await self._streams[stream].put(data)

    async def take(self) -> bytes:
        """Read input, as the command; empty at its end."""
        return await self.typed.get()

    async def read_output(self) -> bytes:
        return await self._read(1)

    async def read_errors(self) -> bytes:
        return await self._read(2)

    async def output(self, limit: int) -> tuple[bytes, bytes]:
        parts: dict[int, bytes] = {1: b"", 2: b""}
        for stream in parts:
            while data := await self._read(stream):
                parts[stream] += data
        return parts[1], parts[2]

    async def write(self, data: bytes) -> None:
        self.pieces.append(len(data))
        await self.typed.put(data)

    async def end_input(self) -> None:
        await self.typed.put(b"")

    def signal(self, name: str) -> None:
        self.signals.append(name)
        if self.order.argv[:1] == ("deaf",):
            self.hearing.told()
        elif self.order.argv[:1] != ("stubborn",) and not self._ended.done():
            self._ended.set_result(128 + signal.Signals[f"SIG{name}"])
            self._run.cancel()

    def resize(self, rows: int, columns: int) -> None:
        self.windows.put_nowait((rows, columns))

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    def fail(self, error: UmlabError) -> None:
        """End as where the guest has gone."""
        for stream in self._streams.values():
            stream.put_nowait(error)

    async def end(self) -> None:
        """End."""
        self.released = True
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)

    async def _read(self, stream: int) -> bytes:
        data = await self._streams[stream].get()
        if isinstance(data, UmlabError):
            raise data
        return data

    async def _play(self) -> None:
        try:
            status = await self._play_command()
        except asyncio.CancelledError:
            if self.released:
                raise
        else:
            if not self._ended.done():
                self._ended.set_result(status)
        for stream in self._streams.values():
            await stream.put(b"")

    async def _play_command(self) -> int:
        if self.order.script is not None:
            await self.put(1, self.order.script.encode())
            return 0
        known = COMMANDS.get(self.order.argv[0])
        if known is None:
            await self.put(2, f"sh: {self.order.argv[0]}: not found\n".encode())
            return 127
        return await known(self)


async def _cat(session: FakeSession) -> int:
    while data := await session.take():
        for start in range(0, len(data), 65_536):
            await session.put(1, data[start : start + 65_536])
    return 0


async def _echo(session: FakeSession) -> int:
    await session.put(1, " ".join(session.order.argv[1:]).encode() + b"\n")
    await session.put(2, b"an error\n")
    return 3


async def _order(session: FakeSession) -> int:
    order = session.order
    facts = [dict(order.environment), order.directory, order.input, order.window]
    await session.put(1, json.dumps(facts).encode())
    return 0


async def _sleep(session: FakeSession) -> int:
    await session.put(1, b"asleep\n")
    await asyncio.Event().wait()
    return 0


async def _flood(session: FakeSession) -> int:
    while True:
        await session.put(1, b"y\n" * 32_768)


async def _hostile(session: FakeSession) -> int:
    await session.put(1, b"one\x1b]0;title\x07two\xff\nlast")
    await session.put(2, b"\x1b[2Jbad\n")
    return 1


async def _tty(session: FakeSession) -> int:
    """Show windows, and what is typed until control-D."""
    rows, columns = session.order.window
    await session.put(1, f"window {rows} {columns}\r\n".encode())
    windows = asyncio.create_task(_show_windows(session))
    try:
        ended = b""
        while not ended:
            # Input comes as it is gathered: the end may be in one piece with what was typed before it.
            typed, ended, _ = (await session.take()).partition(b"\x04")
            if typed:
                await session.put(1, b"typed " + repr(typed).encode() + b"\r\n")
    finally:
        windows.cancel()
    return 7


async def _show_windows(session: FakeSession) -> None:
    while True:
        rows, columns = await session.windows.get()
        await session.put(1, f"window {rows} {columns}\r\n".encode())


async def _die(session: FakeSession) -> int:
    session.fail(GuestFailed("left", 134, "Kernel panic"))
    await asyncio.Event().wait()
    return 0


COMMANDS: dict[str, Callable[[FakeSession], Coroutine[Any, Any, int]]] = {
    **{"cat": _cat, "echo": _echo, "order": _order, "sleep": _sleep, "stubborn": _sleep, "deaf": _sleep, "flood": _flood},
    **{"hostile": _hostile, "tty": _tty, "die": _die},
}


class FakeExecs(GuestExecs):
    """Commands in fake guests.

    Attributes:
        sessions: All that have begun.
        waiting: How many wait for their guest.
    """

    def __init__(self, lab: FakeLab) -> None:
        self._lab = lab
        self.sessions: list[FakeSession] = []
        self.waiting = 0

    @contextlib.asynccontextmanager
    async def begun(self, name: str, order: ExecOrder) -> AsyncIterator[Session]:
        order.request()
        held = self._lab.held(name)
        self.waiting += 1
        try:
            await wait_until_async(lambda: held.state != "booting", 20, "the guest")
        finally:
            self.waiting -= 1
        if held.state != "ready":
            raise StateError(f"guest {name} has no agent that answers")
        session = FakeSession(order)
        self.sessions.append(session)
        try:
            yield session
        finally:
            await session.end()
