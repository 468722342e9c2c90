"""One lab as a service, without HTTP: its switches and guests, held through the keeper."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from umlab import __version__
from umlab.capture.order import CaptureRequest
from umlab.capture.talkers import Talkers, top_talkers
from umlab.daemon import cable
from umlab.daemon.capture import CaptureSet, LabCapture
from umlab.daemon.event_log import EventLog
from umlab.daemon.guest_console import GuestConsoles
from umlab.daemon.guest_device import GuestDevices
from umlab.daemon.guest_exec import GuestExecs
from umlab.daemon.guest_kernel import GuestKernels
from umlab.daemon.guest_process import GuestProcesses
from umlab.daemon.guest_set import GuestSet
from umlab.daemon.hook import HookSet
from umlab.daemon.spec import SwitchSpec, resolve_listen
from umlab.daemon.switch_change import SwitchChange, settled
from umlab.daemon.switch_set import FDB_TIME, SwitchSet
from umlab.daemon.view import (
    FdbEntryView,
    GuestView,
    LabView,
    PortView,
    SwitchView,
)
from umlab.errors import NoSuchSwitch
from umlab.guest.cmdline import GuestSpec
from umlab.keeper.link import KeeperLink
from umlab.keeper.message import close_all
from umlab.transports.fd import FdListener

_log = logging.getLogger(__name__)


class LabService:
    """What the API serves; all calls belong to one event loop's thread.

    Args:
        name: The lab's name.
        runtime: Its directory for sockets.
        state: Its directory for logs.
        keeper: Who holds what must outlive this daemon.

    Attributes:
        name: The lab's name.
        runtime: Its directory for sockets.
        events: Everything that happens in it.
        switch_set: Its switches.
        guest_set: Its guests,
        consoles: what they print and read,
        devices: what is plugged into them,
        kernels: what their kernels tell,
        processes: what runs in them,
        execs: and what is run there for somebody.
        hooks: What is run when something happens to one.
        captures: Its captures.
    """

    def __init__(self, name: str, runtime: Path, state: Path, keeper: KeeperLink) -> None:
        self.name = name
        self.runtime = runtime
        self.events = EventLog()
        self._keeper = keeper
        self.guest_set = GuestSet(runtime, state, keeper, self.events, self._fd_listener)
        self.switch_set = SwitchSet(keeper, self.events, self.guest_set.guest_of, name)
        self.consoles = GuestConsoles(self.guest_set)
        self.devices = GuestDevices(self.guest_set, self.switch_set)
        self.kernels = GuestKernels(self.guest_set)
        self.processes = GuestProcesses(self.guest_set)
        self.execs = GuestExecs(self.guest_set)
        self.hooks = HookSet(name, state, keeper, self.events)
        self.captures = CaptureSet(self.switch_set, self.events)
        self._started_at = time.time()
        self._chores: asyncio.Task[None] | None = None

    async def resume(self) -> None:
        """Go on with everything that an earlier daemon has left at the keeper."""
        await self.switch_set.resume()
        # Before the guests, who may have something to say.
        self.hooks.resume()
        await self.guest_set.resume()
        # What was being given away or taken back when that one was killed belongs to nothing, and what
        # cannot be used is given up.
        for name in list(self._keeper.things):
            close_all(self._keeper.things.pop(name).fds)
            self._keeper.drop(name)
        self._chores = asyncio.create_task(self._do_chores())

    async def start(
        self, switches: Sequence[SwitchSpec], guests: Sequence[GuestSpec], *, alone: bool = False
    ) -> None:
        """Have these switches and guests, in this order; one that is there already stays what it is.

        Args:
            switches: The switches.
            guests: The guests.
            alone: Leave out switches that are not there where others are.

        Raises:
            UmlabError: One cannot be had; those before it are.
        """
        whole = alone and bool(self.switch_set.names())
        for switch in switches:
            if switch.name not in self.switch_set.names():
                if not whole:
                    await self.put_switch(switch)
            elif self.switch_set.spec(switch.name) != switch:
                _log.warning("switch %s goes on as it was, not as it is described now", switch.name)
        for guest in guests:
            if guest.umid not in self.guest_set.names():
                await self.put_guest(guest)

    async def stop(self) -> None:
        """End every guest, then every switch, then the keeper."""
        await self._rest()
        await self.guest_set.stop()
        await self.switch_set.stop()
        self.events.close()
        try:
            await self._keeper.end()
        finally:
            self._keeper.close()

    async def leave(self) -> None:
        """Go and leave everything to the keeper, for the next daemon."""
        await self._rest()
        self.switch_set.leave()
        await self.guest_set.leave()
        self.events.close()
        self._keeper.close()

    async def _rest(self) -> None:
        await self.hooks.close()
        if self._chores is not None:
            self._chores.cancel()
            await asyncio.gather(self._chores, return_exceptions=True)

    async def _do_chores(self) -> None:
        while True:
            await asyncio.sleep(FDB_TIME)
            self.switch_set.write_fdbs()

    def _fd_listener(self, switch: str) -> FdListener:
        return self.switch_set.service(switch).fd_listener

    # Lookups.

    def lab(self) -> LabView:
        """Return what the lab is."""
        return LabView(
            name=self.name,
            version=__version__,
            pid=os.getpid(),
            keeper_pid=self._keeper.pid,
            started_at=self._started_at,
            switches=tuple(self.switch_set.names()),
            guests=tuple(self.guest_set.names()),
        )

    def switches(self) -> list[SwitchView]:
        """Return every switch, by name."""
        return self.switch_set.views()

    def switch(self, name: str) -> SwitchView:
        """Return a switch.  Raises NoSuchSwitch."""
        return self.switch_set.view(name)

    def ports(self, switch: str) -> list[PortView]:
        """Return the ports of a switch, by number.  Raises NoSuchSwitch."""
        return self.switch_set.ports(switch)

    def port(self, switch: str, port_no: int) -> PortView:
        """Return a port.  Raises NoSuchSwitch, NoSuchPort."""
        return self.switch_set.port(switch, port_no)

    def fdb(self, switch: str) -> list[FdbEntryView]:
        """Return the learnt addresses, oldest first.  Raises NoSuchSwitch."""
        return self.switch_set.fdb(switch)

    async def talkers(self, switch: str, seconds: float, count: int) -> Talkers:
        """Return who has sent most, from what the flight recorder holds.

        Raises NoSuchSwitch, and StateError where there is no recorder.
        """
        recorder = self.switch_set.recorder(switch)
        return await asyncio.to_thread(
            lambda: top_talkers(recorder.blocks(), recorder.capacity, recorder.epoch_ns(), seconds, count)
        )

    async def capture(self, request: CaptureRequest) -> LabCapture:
        """Begin a capture; whoever asks for it has to close it.

        Raises NoSuchSwitch, NoSuchPort, CaptureError, StateError.
        """
        return await self.captures.begin(request)

    def guests(self) -> list[GuestView]:
        """Return every guest, by name; ended ones until they are removed."""
        return self.guest_set.views()

    def guest(self, name: str) -> GuestView:
        """Return a guest.  Raises NoSuchGuest."""
        return self.guest_set.view(name)

    # Changes.  Each may be repeated: the second time it finds the work done and returns False.

    async def put_switch(self, spec: SwitchSpec) -> bool:
        """Have a switch of this description; a kind alone listens in the lab's directory.

        Raises AlreadyExists, TransportError, SwitchError.
        """
        places = (resolve_listen(each, spec.name, self.runtime, None) for each in spec.listen)
        return await self.switch_set.put(replace(spec, config=settled(spec.config), listen=tuple(places)))

    async def set_switch(self, name: str, change: SwitchChange) -> bool:
        """Reconfigure a running switch, all or nothing; no port goes down.

        Raises NoSuchSwitch, SwitchError, LabError; ValueError for what no switch can be.
        """
        return self.switch_set.change(name, change)

    async def remove_switch(self, name: str) -> bool:
        """End a switch, if it is there."""
        with contextlib.suppress(NoSuchSwitch):
            await self.guest_set.set_down(self.switch_set.service(name))
        return await self.switch_set.remove(name)

    async def remove_port(self, switch: str, port_no: int) -> bool:
        """Detach what is plugged in, if it is there.  Raises NoSuchSwitch."""
        service = self.switch_set.service(switch)
        session = service.session(port_no)
        if session is not None and session.peer is not None and session.kind in cable.KINDS:
            await self.guest_set.set_down(service, session.peer.pid)
            if service.session(port_no) is not session:
                # What was set down has ended by itself, and the number may be another guest's by now.
                return True
        return self.switch_set.remove_port(switch, port_no)

    def flush_fdb(self, switch: str, port_no: int | None = None) -> bool:
        """Forget learnt addresses, of one port or all.  Raises NoSuchSwitch, NoSuchPort."""
        return self.switch_set.flush_fdb(switch, port_no)

    async def put_guest(self, spec: GuestSpec) -> bool:
        """Have a guest of this description run; an ended one is started anew.

        Raises AlreadyExists, NoSuchSwitch, SwitchError, LabError (its text says what is missing).
        """
        return await self.guest_set.put(spec)

    async def remove_guest(self, name: str) -> bool:
        """Stop a guest, if it is there: its own shutdown first, by force after 25 seconds at most."""
        return await self.guest_set.remove(name)
