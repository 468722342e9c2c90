"""A lab of a real keeper whose daemon can crash within the test's process; its kernels are scripts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from support.deadline import wait_until_async
from support.real_keeper import RealKeeper
from umlab.daemon.lab import LabService
from umlab.daemon.spec import SwitchSpec
from umlab.guest.cmdline import AGENT_FD, TERMINAL_FD, DiskRoot, GuestSpec
from umlab.keeper.link import KeeperLink
from umlab.keeper.message import Message
from umlab.switch.model import SwitchConfig

#: Greets on its agent's line and its terminal, and ends on SIGTERM; what it reads at its terminal it prints
#: on its console.
_KERNEL = f"""#!/bin/bash
echo "console of $$"
echo "umlab-agent 2 line 0 1" >&{AGENT_FD}
echo "terminal of $$" >&{TERMINAL_FD}
while read -r line <&{TERMINAL_FD}; do echo "$line"; done
"""


class KeptLab:
    """One lab after another at the same keeper.

    Args:
        keeper: Holds it.
        directory: For everything that it has.

    Attributes:
        lab: The daemon of now.
    """

    def __init__(self, keeper: RealKeeper, directory: Path) -> None:
        self.keeper = keeper
        self.runtime, self.state = directory / "r", directory / "s"
        self.kernel = directory / "linux"
        self.kernel.write_text(_KERNEL)
        self.kernel.chmod(0o755)
        self.disk = directory / "disk"
        self.disk.write_bytes(bytes(4096))
        for path in (self.runtime, self.state):
            path.mkdir(mode=0o700)
        self.link: KeeperLink
        self.lab: LabService
        self._running = False

    async def start(self) -> LabService:
        """Be the next daemon."""
        self.link = self.keeper.connect()
        self.lab = LabService("lan", self.runtime, self.state, self.link)
        self._running = True
        await self.lab.resume()
        return self.lab

    async def crash(self) -> None:
        """Close all that the daemon has, telling nobody, as the kernel does for one that is killed."""
        if not self._running:
            return
        self._running = False
        self.link.close()
        # The files of a killed daemon's sockets stay.
        sockets = [path for path in self.runtime.iterdir() if path.is_socket()]
        for path in sockets:
            os.link(path, f"{path}~")
        for name in self.lab.switch_set.names():
            await self.lab.switch_set.service(name).stop()
        for path in sockets:
            os.rename(f"{path}~", path)
        await self.lab.leave()

    async def restart(self) -> LabService:
        """Crash and be the next daemon."""
        await self.crash()
        return await self.start()

    async def alter(self, name: str, change: Any) -> None:
        """Crash, and put what a thing's meta and descriptors become, for the next daemon to find.

        Args:
            name: The thing.
            change: Is given both, changes the former and may return other descriptors.
        """
        await self.crash()
        link = self.keeper.connect()
        thing = link.things[name]
        meta: Message = thing.meta
        fds = change(meta, list(thing.fds))
        link.put(name, meta, thing.fds if fds is None else fds)
        link.close()

    def kept(self) -> set[str]:
        """Return the names of what the keeper holds; only while there is no daemon."""
        link = self.keeper.connect()
        names = set(link.things) | {f"group/{name}" for name in link.groups}
        link.close()
        return names

    def spec(self, name: str = "g", **fields: Any) -> GuestSpec:
        """Describe a guest."""
        return GuestSpec(name, str(self.kernel), root=DiskRoot(str(self.disk)), **fields)

    def switch(self, *listen: str, name: str = "lan") -> SwitchSpec:
        """Describe a switch."""
        return SwitchSpec(name, SwitchConfig(), listen or (f"bess:{self.runtime}/b",))

    async def ready(self, name: str = "g") -> int:
        """Wait until a guest is ready and return its pid."""
        await wait_until_async(lambda: self.lab.guest(name).state == "ready", 20, "a guest")
        await asyncio.sleep(0)
        pid = self.lab.guest(name).pid
        await wait_until_async(lambda: f"console of {pid}" in self.log(name), 20, "its console")
        return pid

    def log(self, name: str = "g") -> str:
        """Return what a guest has printed."""
        return self.lab.consoles.log(name, "con0", 0, 1 << 20).data.decode()
