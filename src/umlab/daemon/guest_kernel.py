"""What the kernels of a lab's guests tell about themselves, when asked on their management consoles."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

from umlab.daemon.guest_set import GuestSet
from umlab.errors import MconsoleError
from umlab.mconsole.aio import AsyncMconsole


class GuestKernels:
    """The kernels of all guests.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: GuestSet) -> None:
        self._guests = guests

    async def stack(self, name: str, pid: int) -> str:
        """Return a kernel stack.  Raises NoSuchGuest, MconsoleError."""
        mconsole = self._guests.find(name).service.mconsole
        return await _aloud(mconsole, lambda: mconsole.stack(pid))

    async def sysrq(self, name: str, letter: str) -> str:
        """Press a system request key.  Raises NoSuchGuest, MconsoleError."""
        mconsole = self._guests.find(name).service.mconsole
        if letter.isdigit():
            return await mconsole.sysrq(letter)
        return await _aloud(mconsole, lambda: mconsole.sysrq(letter))


async def _aloud(mconsole: AsyncMconsole, ask: Callable[[], Awaitable[str]]) -> str:
    """Ask while the kernel says everything on its console, which filters these answers.

    Source: Linux kernel/printk; the first of four numbers is the console's level.
    """
    level = (await mconsole.proc("sys/kernel/printk")).split()[0]
    await mconsole.sysrq("8")
    try:
        return await ask()
    finally:
        # A guest that the key has ended has no level any more.
        with contextlib.suppress(MconsoleError):
            await mconsole.sysrq(level)
