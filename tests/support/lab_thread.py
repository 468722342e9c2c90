"""The real API over a lab without kernels, for what stands above it: a daemon in a thread."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from support.fake_lab import FakeLab
from support.serving_thread import ServingThread
from umlab.api.app import create_app
from umlab.api.server import ApiServer
from umlab.daemon.spec import SwitchSpec
from umlab.guest.cmdline import GuestSpec
from umlab.switch.model import SwitchConfig

T = TypeVar("T")


class LabThread(ServingThread):
    """A daemon that runs until the block ends.

    Args:
        runtime: The value of XDG_RUNTIME_DIR.
        name: The lab's name.
        switches: Switches that it has.
        guests: Guests that it has.

    Attributes:
        lab: What it serves; touch it by :meth:`call` only.
        stopped: What was asked for, ``stop`` or ``leave``, each time that somebody asked for the end.
    """

    def __init__(
        self, runtime: Path, name: str, switches: tuple[str, ...] = (), guests: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.stopped: list[str] = []
        self.lab: FakeLab
        self._path = runtime / "umlab" / name / "api.sock"
        self._name = name
        self._switches = switches
        self._guests = guests

    def call(self, work: Callable[[FakeLab], T]) -> T:
        """Run something in the daemon's thread and return its result."""

        async def run() -> T:
            return work(self.lab)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve the API."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.lab = FakeLab()
        self.lab.name = self._name
        for name in self._switches:
            listen = (f"daemon:/run/{name}.ctl",)
            await self.lab.put_switch(SwitchSpec(name, SwitchConfig(), listen))
        for name in self._guests:
            await self.lab.put_guest(GuestSpec(name))
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(self._path))
        app = create_app(self.lab, self.stopped.append)
        # Whatever the framework does once is done now: it changes the filters of warnings meanwhile,
        # which all threads share, and so must not happen in two at a time.
        app.openapi()
        server = ApiServer(app, sock)
        await server.start()
        yield
        self.lab.events.close()
        await server.stop()
        self.lab.close()
        self._path.unlink()
