"""What the kernels of a lab's guests tell about themselves, when asked on their management consoles."""

from __future__ import annotations

from umlab.daemon.guest_set import GuestSet
from umlab.daemon.view import GuestVitals
from umlab.mconsole import command as commands


class GuestKernels:
    """The kernels of all guests.  Every method raises NoSuchGuest, MconsoleError and GuestBusy.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: GuestSet) -> None:
        self._guests = guests

    async def vitals(self, name: str) -> GuestVitals:
        """Return how a guest is; nobody waits long for one that is silent.  Raises NoSuchGuest alone."""
        return await self._guests.find(name).kernel.vitals()

    async def run(self, name: str, text: str, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Run a command of the management console as it is.

        Args:
            name: The guest.
            text: The command.
            timeout: Seconds in which it must have answered; by default what suits the first word.
        """
        return await self._guests.find(name).kernel.run(commands.raw(text, timeout))

    async def stack(self, name: str, pid: int) -> str:
        """Return the kernel stack of a process."""
        return await self._guests.find(name).kernel.stack(pid)

    async def sysrq(self, name: str, letter: str) -> str:
        """Press a system request key; a digit sets the level of the guest's console for good."""
        return await self._guests.find(name).kernel.sysrq(letter)
