"""One guest's kernel, asked by everybody on its management console."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from umlab.daemon.pace import Pace
from umlab.daemon.view import GuestVitals
from umlab.daemon.vitals import Vitals
from umlab.errors import MconsoleError, MconsoleTimeout, MconsoleUnreachable, UmlabError
from umlab.mconsole import command as commands
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.command import QUICK_TIMEOUT, Command
from umlab.mconsole.session import Answer

#: Seconds for reading and for setting the log level of the guest's console,
LEVEL_TIMEOUT = 2.0
#: and for whoever is at work with that level.
LEVEL_WAIT = 10.0
#: Commands whose answers are filtered by that level, or which set it.
_LEVEL_WORDS = (b"sysrq", b"stack")
#: A level that lets everything through.
_ALL = 8


class Kernel:
    """A guest's kernel.

    No request waits for another's answer, for a hung guest gives none; only what the level of the
    guest's console concerns goes one after another.  Every method raises `MconsoleError` (and those
    below it) and `GuestBusy`.

    Args:
        path: The console's socket.
        umid: The guest's name.
        pace: How often it is asked.

    Attributes:
        heard_at: When it has last answered, seconds on the machine's monotonic clock.
    """

    def __init__(self, path: str, umid: str, pace: Pace | None = None) -> None:
        self.heard_at = 0.0
        self._path = path
        self._umid = umid
        self._pace = pace or Pace(umid)
        self._level_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[str]] = set()
        self._vitals = Vitals(umid, self._ask)

    async def vitals(self) -> GuestVitals:
        """Return how the guest is.  Raises nothing."""
        return await self._vitals.now()

    async def look(self, timeout: float) -> GuestVitals:  # noqa: ASYNC109
        """Return how the guest is right now; each of its answers has so many seconds.  Raises nothing."""
        return await Vitals(self._umid, self._ask).once(timeout)

    async def run(self, command: Command) -> str:
        """Run a command as it is."""
        with self._pace.caller():
            if not command.text.lstrip().startswith(_LEVEL_WORDS):
                return await self._ask(command)
            async with self._level():
                return await self._ask(command)

    async def stack(self, pid: int) -> str:
        """Return the kernel stack of a process."""
        return await self.run_aloud(commands.stack(pid))

    async def sysrq(self, letter: str) -> str:
        """Press a system request key; a digit sets the level of the guest's console for good."""
        command = commands.sysrq(letter)
        return await (self.run(command) if letter.isdigit() else self.run_aloud(command))

    async def run_aloud(self, command: Command) -> str:
        """Run a command whose answer the level of the guest's console filters, with nothing filtered.

        The level is what it was afterwards, also when the caller is cancelled; only a daemon that is
        killed meanwhile leaves it raised.
        """
        task = asyncio.create_task(self._aloud(command))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if task.cancelled() and not (caller and caller.cancelling()):
                raise MconsoleUnreachable(self._umid, command.display, "was removed meanwhile") from None
            raise

    async def close(self) -> None:
        """End what is at work."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._vitals.close()

    async def _aloud(self, command: Command) -> str:
        with self._pace.caller():
            async with self._level():
                try:
                    level = await self._read_level()
                except MconsoleTimeout:
                    # A hung kernel may still serve interrupts; these answer soon or never.
                    return await self._ask(command, min(command.timeout, QUICK_TIMEOUT))
                if level is None or level >= _ALL:
                    return await self._ask(command)
                try:
                    await self._ask(commands.sysrq(str(_ALL)), LEVEL_TIMEOUT)
                    return await self._ask(command)
                finally:
                    # A guest that the key has ended has no level any more.
                    with contextlib.suppress(UmlabError):
                        await self._ask(commands.sysrq(str(level)), LEVEL_TIMEOUT)

    async def _read_level(self) -> int | None:
        """Return the level, ``None`` where the kernel does not serve it or what it says makes no sense.

        Source: Linux kernel/printk; the first of four numbers is the console's level.
        """
        try:
            level = int((await self._ask(commands.proc("sys/kernel/printk"), LEVEL_TIMEOUT)).split()[0])
        except MconsoleTimeout:
            raise
        except (MconsoleError, ValueError, IndexError):
            return None
        return level if level >= 0 else None

    @contextlib.asynccontextmanager
    async def _level(self) -> AsyncIterator[None]:
        """Be the only one whom the level concerns."""
        try:
            async with asyncio.timeout(LEVEL_WAIT):
                await self._level_lock.acquire()
        except TimeoutError:
            raise self._pace.refusal() from None
        try:
            yield
        finally:
            self._level_lock.release()

    async def _ask(self, command: Command, timeout: float | None = None) -> str:  # noqa: ASYNC109
        await self._pace.turn()
        # One of its own, whose requests wait for nobody else's.
        mconsole = AsyncMconsole(self._path, self._umid)
        outcome = await mconsole.exchange(command.text, timeout or command.timeout)
        if isinstance(outcome, Answer):
            self.heard_at = time.monotonic()
        return command.result(outcome, self._umid)

    def _done(self, task: asyncio.Task[str]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            # The caller may be gone, who would have taken it.
            task.exception()
