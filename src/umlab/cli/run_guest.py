"""One guest for one command: boot, run, end, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from umlab.cli.exit_status import EXIT_OWN_FAILURE, EXIT_SIGNAL, EXIT_TIMEOUT
from umlab.cli.passed_signals import PassedSignals
from umlab.cli.run_order import RunOrder
from umlab.cli.run_stream import Left, Streams
from umlab.errors import GuestFailed, UmlabError
from umlab.guest.console import Console, escape
from umlab.guest.inside.session import Request, Session
from umlab.guest.process import TERM_TIMEOUT, Guest

#: Seconds that a kernel has to come up.
BOOT_TIMEOUT = 60.0
#: Seconds that a guest has to put on the disks what it has written there.
_LAST_TIMEOUT = 30.0
#: What a panic says in any kernel.
_PANIC = "Kernel panic - not syncing: "
#: What our init says of a root that is not all that it should be, and what the kernel says when it gives up.
_INIT_SAYS = "umlab: "
_INIT_ENDED = "Attempted to kill init!"


@dataclass(slots=True)
class Outcome:
    """How it went.

    Attributes:
        status: Of the command, or ours.
        error: Why the status is ours; empty where it is the command's.
        console: What the guest printed on its console, the last 64 KiB of it, as text; where it has failed.
        boot_seconds: Until the command could be started.
        command_seconds: Until it had ended.
        total_seconds: Until nothing was left of it all.
    """

    status: int = EXIT_OWN_FAILURE
    error: str = ""
    console: str | None = None
    boot_seconds: float | None = None
    command_seconds: float | None = None
    total_seconds: float = 0.0


class WatchedConsole(Console):
    """A console that standard error shows as well."""

    def __init__(self, log: BinaryIO | None = None) -> None:
        super().__init__(log)
        # The terminal may be in raw mode.
        self._line_end = "\r\n" if os.isatty(2) else "\n"

    def feed(self, data: bytes) -> None:
        """Take output that the guest printed."""
        super().feed(data)
        with contextlib.suppress(OSError):
            os.write(2, escape(data).replace("\n", self._line_end).encode())


class GuestRun:
    """One run.

    Args:
        order: What is to be done.
        streams: What the command reads and writes.
        console: Takes what the guest prints.
        timeout: Seconds for all of it, ``None`` for as many as it takes.
    """

    def __init__(self, order: RunOrder, streams: Streams, console: Console, timeout: float | None) -> None:
        self._order = order
        self._streams = streams
        self._console = console
        self._timeout = timeout
        self._outcome = Outcome()
        self._begun_at = time.monotonic()
        self._guest: Guest | None = None
        self._session: Session | None = None
        self._signals = PassedSignals(self._pass_on)

    async def run(self) -> Outcome:
        """Do all of it; nothing of the guest is left afterwards."""
        outcome = self._outcome
        task = asyncio.ensure_future(self._boot_and_run())
        with self._signals.heard(task):
            try:
                outcome.status = await task
            except asyncio.CancelledError:
                if not self._signals.ended_by:
                    raise
                outcome.status = EXIT_SIGNAL + self._signals.ended_by
                outcome.error = f"ended by {signal.Signals(self._signals.ended_by).name}"
            except TimeoutError:
                outcome.status = EXIT_TIMEOUT
                outcome.error = f"{self._doing()} did not end within {self._timeout:g} seconds"
            except Left:
                outcome.status = EXIT_SIGNAL + signal.SIGINT
                outcome.error = "ended at the terminal"
            except BrokenPipeError:
                # As it is for a command whose output nobody reads.
                outcome.status = EXIT_SIGNAL + signal.SIGPIPE
            except GuestFailed as error:
                self._failed(error)
            except UmlabError as error:
                outcome.error = str(error)
            finally:
                if self._guest is not None:
                    await self._end(self._guest)
        outcome.total_seconds = self._seconds()
        return outcome

    async def _boot_and_run(self) -> int:
        order = self._order
        async with asyncio.timeout(self._timeout):
            with _held(order.base):
                self._guest = guest = await Guest.start(order.spec, order.base, console=self._console)
            await guest.ready(BOOT_TIMEOUT)
            self._outcome.boot_seconds = self._seconds()
            _print_warnings(self._console.text)
            request = Request(order.script, self._streams.input, self._streams.window())
            async with self._last_words(guest):
                self._session = session = await guest.agent.open(request)
                try:
                    async with session.hearing.watched():
                        return await self._streams.converse(session)
                finally:
                    self._outcome.command_seconds = self._seconds() - self._outcome.boot_seconds
                    guest.agent.release(session)

    @contextlib.asynccontextmanager
    async def _last_words(self, guest: Guest) -> AsyncIterator[None]:
        """Have what the guest has written for the host there before its end."""
        try:
            yield
        finally:
            if self._order.last_script is not None and guest.status is None and not self._signals.ended_by:
                with contextlib.suppress(UmlabError):
                    await guest.agent.run(self._order.last_script, _LAST_TIMEOUT)

    async def _end(self, guest: Guest) -> None:
        # A kernel that counts which of its lines run writes that down when it ends by itself.
        writes = self._order.last_script is not None and not self._signals.ended_by
        await guest.stop(term_timeout=TERM_TIMEOUT if writes else 0)

    def _pass_on(self, name: str) -> bool:
        if self._session is None or self._session.has_exited:
            return False
        # An agent that does not read has a guest that hangs.
        with contextlib.suppress(UmlabError):
            self._session.signal(name)
            return True
        return False

    def _failed(self, error: GuestFailed) -> None:
        outcome = self._outcome
        outcome.console = error.console_tail
        lines = error.console_tail.splitlines()
        panic = next((line for line in lines if _PANIC in line), "")
        said = [line.removeprefix(_INIT_SAYS) for line in lines if line.startswith(_INIT_SAYS)]
        if _INIT_ENDED in panic and said and outcome.boot_seconds is None:
            reason = said[-1]
        elif panic:
            reason = panic[panic.index(_PANIC) :]
        elif error.status is None:
            reason = "it does not answer"
        elif error.status < 0:
            reason = f"it was ended by {signal.Signals(-error.status).name}"
        else:
            reason = f"it ended with status {error.status}"
        outcome.error = f"{self._doing()} failed: {reason}"

    def _doing(self) -> str:
        return "the boot" if self._outcome.boot_seconds is None else "the command"

    def _seconds(self) -> float:
        return time.monotonic() - self._begun_at


@contextlib.contextmanager
def _held(base: str) -> Iterator[None]:
    """Have what earlier runs left removed, and nothing of ours while it begins."""
    if os.listdir(base):
        from umlab.lab.gc import collect_runs

        collect_runs()
    fd = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield
    finally:
        os.close(fd)


def _print_warnings(console: str) -> None:
    for line in console.splitlines():
        if line.startswith(_INIT_SAYS):
            with contextlib.suppress(OSError):
                os.write(2, f"{line}\n".encode())
