"""How much memory a guest has, while it runs.

The kernel takes pages away from its programs and gives back what it has taken, never more.  It says ``OK``
whatever it could do; a guest that is left too little stands still for ever.  So what is free is looked at
before and afterwards.

Source: Linux arch/um/drivers/mconsole_kern.c ``mem_config``.
"""

from __future__ import annotations

from umlab.daemon.kernel import Kernel
from umlab.errors import LabError, MconsoleError, MconsoleTimeout
from umlab.guest.device import DeviceName, Memory, request, size_text
from umlab.mconsole import command as commands
from umlab.mconsole.reading import parse_meminfo

#: Bytes of free memory that every guest keeps.
RESERVE = 16 << 20


class Balloon:
    """One guest's memory.

    Args:
        umid: The guest.
        kernel: Its kernel.
        whole: Bytes that it was started with.
        size: Bytes that it has.

    Attributes:
        size: Bytes that it has.
    """

    def __init__(self, umid: str, kernel: Kernel, whole: int, size: int) -> None:
        self.size = size
        self._umid = umid
        self._kernel = kernel
        self._whole = whole

    async def resize(self, size: int) -> None:
        """Let the guest have so much memory.

        Args:
            size: Bytes, whole pages.

        Raises:
            LabError: It is more than the guest was started with, or would leave the guest too little.
            MconsoleError: The kernel did not do it, or does not answer.
        """
        if size > self._whole:
            raise LabError(
                f"guest {self._umid}: mem: it was started with {size_text(self._whole)}, and a running "
                "kernel gets no more than that"
            )
        change = size - self.size
        if change == 0:
            return
        free = await self._free()
        if -change > free - RESERVE:
            raise LabError(
                f"guest {self._umid}: mem: {size_text(-change)} cannot be taken: it has {free >> 20} MiB "
                f"free, and with less than {RESERVE >> 20} it would stand still"
            )
        command = request(DeviceName("mem"), Memory(abs(change), "+" if change > 0 else "-"))
        try:
            await self._kernel.run(commands.raw(command))
        except MconsoleTimeout:
            # It will do so when it goes on.
            self.size = size
            raise
        self.size = size
        moved = await self._free() - free
        # Its programs take and free some meanwhile.
        if abs(moved - change) > max(abs(change) // 2, 2 << 20):
            raise MconsoleError(
                self._umid, command, f"the kernel took it, and its free memory changed by {moved >> 10} KiB"
            )

    async def _free(self) -> int:
        return parse_meminfo(await self._kernel.run(commands.proc("meminfo"))).free
