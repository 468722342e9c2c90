"""A guest with its management console: what the guest and mconsole packages are together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType

from umlab.errors import MconsoleTimeout, StateError
from umlab.guest.cmdline import DiskRoot, GuestSpec
from umlab.guest.console import Console
from umlab.guest.group import Starter
from umlab.guest.inside.agent import ExecResult
from umlab.guest.process import Guest, Rung, StopReport
from umlab.mconsole.aio import AsyncMconsole

#: Seconds for the guest's own shutdown, after ctrl-alt-del.
CAD_TIMEOUT = 10.0
#: Seconds for the kernel's end, after halt.
HALT_TIMEOUT = 6.0
#: What our init prints when ctrl-alt-del has ended all its programs; it leaves the rest to halt.
_DOWN = b"umlab: guest is down"
#: Seconds between two looks whether a kernel boots anew.
_BOOT_POLL = 0.2


class GuestService:
    """A running guest, made by :meth:`start`; an async context manager that stops it.

    Attributes:
        guest: Its process, console output and command channel.
        mconsole: Its management console.
    """

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.mconsole = AsyncMconsole(guest.run.mconsole_path, guest.spec.umid)
        self._silent = False
        self._was_ready = False

    @classmethod
    async def start(
        cls,
        spec: GuestSpec,
        base: str,
        *,
        console: Console | None = None,
        starter: Starter | None = None,
        terminal: bool = False,
        nic_fds: Sequence[int] = (),
        notify: str | None = None,
    ) -> GuestService:
        """Start a guest, as :meth:`umlab.guest.process.Guest.start` does."""
        return cls(
            await Guest.start(
                spec,
                base,
                console=console,
                starter=starter,
                terminal=terminal,
                nic_fds=nic_fds,
                notify=notify,
            )
        )

    @property
    def is_ready(self) -> bool:
        """Whether its agent has answered once."""
        return self._was_ready

    def assume_ready(self) -> None:
        """Take it that its agent has answered an earlier daemon."""
        self._was_ready = True

    @property
    def umid(self) -> str:
        """The guest's name."""
        return self.guest.spec.umid

    async def ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until its agent answers, as :meth:`umlab.guest.process.Guest.ready` does."""
        await self.guest.ready(timeout)
        self._was_ready = True

    async def run(self, command: str, timeout: float) -> ExecResult:  # noqa: ASYNC109
        """Run a shell script in it, as :meth:`umlab.guest.inside.agent.Agent.run` does."""
        result = await self.guest.agent.run(command, timeout)
        self._was_ready = True
        return result

    async def reboot(self, timeout: float) -> None:  # noqa: ASYNC109
        """Reboot it at once, without a shutdown of its programs, and wait until its agent answers again.

        Args:
            timeout: Seconds.

        Raises:
            GuestFailed: It ended, or was not ready in time.
            MconsoleError: Its kernel did not take the command.
        """
        await self.guest.agent.reboot(self.mconsole.reboot, timeout)

    async def stop(self) -> StopReport:
        """End it and remove all that it used.

        In turn: ``cad`` lets its programs end (10 seconds), ``halt`` ends its kernel (6), SIGTERM (5),
        SIGKILL to the whole group.  A guest whose console is silent is not asked a second time, and one with
        our init that was never ready has no programs yet that could end.

        Raises:
            GuestFailed: A process hangs in the host's kernel and cannot be killed.
        """
        self._silent = False
        return await self.guest.stop(
            (
                Rung("cad", self._cad, CAD_TIMEOUT, until=self._went_down),
                Rung("halt", self._halt, HALT_TIMEOUT),
            )
        )

    async def _went_down(self) -> None:
        """Wait until its programs have ended: our init says so, another one as a rule reboots the machine."""
        begun = self.guest.boot
        said = asyncio.ensure_future(self.guest.console.wait_for(_DOWN))
        try:
            while not said.done() and (begun is None or self.guest.boot in (begun, None)):
                await asyncio.wait([said], timeout=_BOOT_POLL)
        finally:
            said.cancel()
            await asyncio.gather(said, return_exceptions=True)

    async def _cad(self) -> None:
        root = self.guest.spec.root
        has_own_init = isinstance(root, DiskRoot) and root.init is not None
        if not has_own_init and not self._was_ready:
            # Its kernel would take ctrl-alt-del for a reboot until its init asks for the signal.
            raise StateError(f"guest {self.umid} has not booted")
        try:
            await self.mconsole.cad()
        except MconsoleTimeout:
            self._silent = True
            raise

    async def _halt(self) -> None:
        if self._silent:
            raise MconsoleTimeout(self.umid, "halt", "")
        await self.mconsole.halt()

    async def __aenter__(self) -> GuestService:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
