"""Commands in a lab's guests, run by their agents."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from umlab.daemon.exec_order import ExecOrder
from umlab.daemon.guest_set import GuestSet
from umlab.errors import CommandTimeout, GuestFailed, StateError
from umlab.guest.inside.agent import Agent, ExecResult
from umlab.guest.inside.session import Session

#: Seconds that a command waits for its guest to boot.
BOOT_TIME = 60.0
#: Bytes of output and errors, each, that :meth:`GuestExecs.run` takes.
MAX_OUTPUT = 8 << 20


class GuestExecs:
    """The commands in all guests; eight run in a guest at once, others wait for their turn.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: GuestSet) -> None:
        self._guests = guests

    @contextlib.asynccontextmanager
    async def begun(self, name: str, order: ExecOrder) -> AsyncIterator[Session]:
        """Have a command run while the context lasts; one that has not ended then is killed.

        A guest that boots is waited for.

        Args:
            name: The guest.
            order: The command.

        Raises:
            NoSuchGuest: There is no such guest.
            StateError: It has no agent that answers, or is removed.
            GuestFailed: It ended.
            LocalProtocolError: There is no command, or no guest can be told it.
            RemoteProtocolError: Its agent makes no sense.
        """
        request = order.request()
        agent = await self._agent(name)
        session = await agent.open(request)
        try:
            yield session
        finally:
            agent.release(session)

    async def run(self, name: str, order: ExecOrder, timeout: float) -> ExecResult:  # noqa: ASYNC109
        """Run a command to its end; takes and raises what :meth:`begun` does.

        Args:
            name: The guest.
            order: The command, without input.
            timeout: Seconds, those of waiting included, after which it is killed.

        Raises:
            CommandTimeout: It did not end in time.
            RemoteProtocolError: It wrote more than 8 MiB.
        """
        try:
            async with asyncio.timeout(timeout), self.begun(name, order) as session:
                stdout, stderr = await session.output(MAX_OUTPUT)
                return ExecResult(await session.wait(), stdout, stderr)
        except TimeoutError:
            raise CommandTimeout(name, order.text, timeout) from None

    async def _agent(self, name: str) -> Agent:
        """Return a guest's agent, once it has answered."""
        service = self._guests.find(name).service
        try:
            await service.ready(BOOT_TIME)
        except GuestFailed as error:
            if error.status is not None:
                raise
            raise StateError(f"guest {name} has no agent that answers") from None
        return service.guest.agent
