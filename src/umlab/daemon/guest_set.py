"""The guests of a lab, by name: held by the keeper, logged, with terminals and devices.

The keeper holds under ``guest/NAME`` what is needed to take a guest over: its description, the lock of its
run directory, the reading end of its console, its agent's line, its terminal and what that has shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import TypeAdapter

from umlab._name import check_name
from umlab.console.scrollback import Scrollback
from umlab.console.terminal import Terminal
from umlab.daemon import cable
from umlab.daemon.event_log import EventLog
from umlab.daemon.guest import GuestService
from umlab.daemon.journal import UNUSABLE
from umlab.daemon.place import GUESTS
from umlab.daemon.socket_pair import SocketPairs
from umlab.daemon.switch import SwitchService
from umlab.daemon.view import ConsoleView, DeviceView, GuestView, LogPiece
from umlab.errors import (
    AlreadyExists,
    CommandTimeout,
    GuestFailed,
    LabError,
    MconsoleError,
    NoSuchConsole,
    NoSuchGuest,
    StateError,
    UmlabError,
)
from umlab.guest.cmdline import DiskRoot, GuestSpec, nic_settings
from umlab.guest.console import TAIL_SIZE, Console
from umlab.guest.process import Guest, GuestHandle
from umlab.keeper.link import KeeperLink, KeptGroup, Thing, end_stray, watch_end
from umlab.mconsole.aio import AsyncMconsole
from umlab.transports.fd import FdListener

_log = logging.getLogger(__name__)

#: Seconds for a guest's agent to greet; a slow machine, or a root without an agent, take longer.
READY_TIMEOUT = 120.0
#: Seconds for processes that nobody looked after to be gone, whose name is wanted anew.
_STRAY_TIMEOUT = 15.0
#: Seconds for a command that only changes a terminal's size.
_RESIZE_TIMEOUT = 5.0
#: Devices that every guest has.
_DEVICES = ("con0", "con1", "ssl0")
#: Devices of which the kernel does not tell how they are set.
_NICS = ("eth", "vec")
_LOG, _TERMINAL = "con0", "con1"


class _Member:
    """One guest of the set; ``plugged`` has its NICs, disks and what else was plugged in, with settings."""

    def __init__(
        self, service: GuestService, log: BinaryIO, plugged: dict[str, str], scrollback: Scrollback
    ) -> None:
        self.service = service
        self.log = log
        self.plugged = plugged
        self.scrollback = scrollback
        self.terminal = Terminal(os.dup(service.guest.terminal), scrollback, self._resized)
        self.ready: asyncio.Task[None] | None = None
        self.resizing: asyncio.Task[None] | None = None

    @property
    def guest(self) -> Guest:
        return self.service.guest

    def _resized(self, rows: int, columns: int) -> None:
        """Tell the guest's programs, whom a console of this kind does not tell by itself."""
        if self.service.is_ready and (self.resizing is None or self.resizing.done()):
            self.resizing = asyncio.create_task(self._tell_size(rows, columns))

    async def _tell_size(self, rows: int, columns: int) -> None:
        with contextlib.suppress(CommandTimeout, GuestFailed, StateError):
            await self.service.run(f"stty -F /dev/tty1 rows {rows} cols {columns}", _RESIZE_TIMEOUT)


class GuestSet:
    """All guests of one daemon.

    Args:
        runtime: The lab's directory for sockets; guests have theirs below it.
        state: The lab's directory for logs; each guest has its own in it.
        keeper: Who holds the guests.
        events: Where their ends are published.
        listener_of: Returns where a switch, by name, takes the sockets of ``fd`` NICs.
    """

    def __init__(
        self,
        runtime: Path,
        state: Path,
        keeper: KeeperLink,
        events: EventLog,
        listener_of: Callable[[str], FdListener],
    ) -> None:
        self._base = str(runtime / GUESTS)
        self._logs = state
        self._keeper = keeper
        self._events = events
        self._listener_of = listener_of
        self._members: dict[str, _Member] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def resume(self) -> None:
        """Go on with every guest that an earlier daemon has left; one that cannot be is ended.

        What cannot be understood stays among the keeper's things.
        """
        for key in [key for key in self._keeper.things if key.startswith("guest/")]:
            name = key.removeprefix("guest/")
            try:
                await self._resume(name, self._keeper.things[key], self._keeper.groups[name])
            except (UmlabError, OSError, *UNUSABLE) as error:
                _log.error("guest %s cannot be taken over: %r", name, error)
                self._keeper.drop(key)
        for name, group in list(self._keeper.groups.items()):
            if name not in self._members:
                _log.error("guest %s is ended: there is no record of it that can be used", name)
                end_stray(group)

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._members)

    def guest_of(self, pid: int) -> str | None:
        """Return the guest whose main process this is; any thread may call it."""
        for name, member in list(self._members.items()):
            if member.guest.pid == pid:
                return name
        return None

    async def put(self, spec: GuestSpec) -> bool:
        """Have a guest of a description run, and say whether it had to be started.

        Raises:
            AlreadyExists: One of this name runs that is described otherwise.
            NoSuchSwitch: It has an ``fd`` NIC on a switch that is not there.
            LabError: It cannot be started; says what is missing.
            SwitchError: The switch of an ``fd`` NIC has no port left.
        """
        check_name("guest", spec.umid)
        async with self._lock(spec.umid):
            member = self._members.get(spec.umid)
            if member is not None:
                if member.guest.status is None:
                    if member.guest.spec != spec:
                        raise AlreadyExists("guest", spec.umid)
                    return False
                await self._remove(spec.umid, member)
            await self._start(spec)
            return True

    async def remove(self, name: str) -> bool:
        """Stop a guest and say whether there was one."""
        async with self._lock(name):
            member = self._members.get(name)
            if member is None:
                return False
            await self._remove(name, member)
            return True

    async def stop(self) -> None:
        """Stop every guest, all at the same time."""
        results = await asyncio.gather(*map(self.remove, self.names()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                _log.error("a guest: %s", result)

    async def leave(self) -> None:
        """Stop looking after the guests, which the keeper goes on holding."""
        while self._members:
            _, member = self._members.popitem()
            await self._let_go(member)

    # Consoles.

    def log(self, name: str, start: int, limit: int) -> LogPiece:
        """Return console output; see :meth:`umlab.daemon.lab.LabService.log`."""
        member = self._find(name)
        console = member.guest.console
        total = console.total
        start = max(0, total + start) if start < 0 else min(start, total)
        tail = console.tail
        if start >= total - len(tail):
            data = tail[start - (total - len(tail)) :][:limit]
        else:
            data = os.pread(member.log.fileno(), limit, start)
            if not data:
                # The file has ended, as on a full disk; the latest output is here all the same.
                start = total - len(tail)
                data = tail[:limit]
        return LogPiece(start, start + len(data), data)

    async def wait_log(self, name: str, end: int) -> None:
        """Wait until there is output behind an offset, or the guest has ended.  Raises NoSuchGuest."""
        guest = self._find(name).guest
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(guest.console.grow(end)),
            asyncio.ensure_future(guest.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def consoles(self, name: str) -> list[ConsoleView]:
        """Return the consoles of a guest.  Raises NoSuchGuest."""
        terminal = self._find(name).terminal
        return [ConsoleView(_LOG, "log", 0), ConsoleView(_TERMINAL, "terminal", terminal.viewers)]

    def terminal(self, name: str, console: str) -> Terminal:
        """Return a terminal.  Raises NoSuchGuest, NoSuchConsole."""
        member = self._find(name)
        if console != _TERMINAL:
            raise NoSuchConsole(name, console)
        return member.terminal

    # Devices.

    async def devices(self, name: str) -> list[DeviceView]:
        """Return the devices that a guest is known to have.  Raises NoSuchGuest, MconsoleError."""
        member = self._find(name)
        return [await self._ask(member, device) for device in sorted({*_DEVICES, *member.plugged})]

    async def device(self, name: str, device: str) -> DeviceView:
        """Return a device.  Raises NoSuchGuest, MconsoleError."""
        return await self._ask(self._find(name), device)

    async def put_device(self, name: str, device: str, setting: str) -> bool:
        """Plug a device, and say whether it was not there already.  Raises NoSuchGuest, MconsoleError."""
        async with self._lock(name):
            member = self._find(name)
            if member.plugged.get(device) == setting:
                return False
            await member.service.mconsole.config_set(device, setting)
            member.plugged[device] = setting
            self._write_down(member)
            return True

    async def remove_device(self, name: str, device: str) -> bool:
        """Unplug a device, and say whether it was there.  Raises NoSuchGuest, MconsoleError."""
        async with self._lock(name):
            member = self._find(name)
            was_there = True
            try:
                await member.service.mconsole.remove(device)
            except MconsoleError as error:
                if error.err != -errno.ENODEV:
                    raise
                was_there = False
            # The kernel has accepted a NIC and lost it again where nobody listened for it.
            if member.plugged.pop(device, None) is not None:
                self._write_down(member)
                was_there = True
            return was_there

    async def set_down(self, switch: SwitchService, pid: int | None = None) -> None:
        """Set the interfaces down whose connections a switch is about to end; see :mod:`umlab.daemon.cable`.

        Args:
            switch: The switch.
            pid: Only of the guest with this main process.
        """
        members = [each for each in self._members.values() if pid in (None, each.guest.pid)]
        await asyncio.gather(*(cable.set_down(each.service, each.plugged, switch) for each in members))

    async def stack(self, name: str, pid: int) -> str:
        """Return a kernel stack.  Raises NoSuchGuest, MconsoleError."""
        mconsole = self._find(name).service.mconsole
        return await _aloud(mconsole, lambda: mconsole.stack(pid))

    async def sysrq(self, name: str, letter: str) -> str:
        """Press a system request key.  Raises NoSuchGuest, MconsoleError."""
        mconsole = self._find(name).service.mconsole
        if letter.isdigit():
            return await mconsole.sysrq(letter)
        return await _aloud(mconsole, lambda: mconsole.sysrq(letter))

    # What is shown.

    def views(self) -> list[GuestView]:
        """Return every guest, by name."""
        return [self.view(name) for name in self.names()]

    def view(self, name: str) -> GuestView:
        """Return a guest.  Raises NoSuchGuest."""
        member = self._find(name)
        guest = member.guest
        state = "ended" if guest.status is not None else "ready" if member.service.is_ready else "booting"
        return GuestView(
            name=name,
            state=state,
            pid=guest.pid,
            status=guest.status,
            kernel=guest.spec.kernel,
            memory=guest.spec.memory,
            started_at=guest.started_at,
            consoles=tuple(console.name for console in self.consoles(name)),
            mconsole=guest.run.mconsole_path,
        )

    # Below.

    def _find(self, name: str) -> _Member:
        try:
            return self._members[name]
        except KeyError:
            raise NoSuchGuest(name) from None

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def _folder(self, name: str) -> Path:
        return self._logs / name

    async def _start(self, spec: GuestSpec) -> None:
        name = spec.umid
        if (stray := self._keeper.groups.get(name)) is not None:
            await stray.gone(_STRAY_TIMEOUT)
        async with contextlib.AsyncExitStack() as on_error:
            log = on_error.enter_context(self._open_log(name, fresh=True))
            try:
                os.makedirs(self._base, mode=0o700, exist_ok=True)
                scrollback = Scrollback()
                on_error.callback(scrollback.close)
                with SocketPairs(spec, self._listener_of) as pairs:
                    service = await GuestService.start(
                        spec,
                        self._base,
                        log=log,
                        starter=self._keeper,
                        terminal=True,
                        nic_fds=pairs.guest_ends,
                    )
                    on_error.push_async_callback(self._give_up, service.guest)
                    pairs.plug(service.guest.pid)
                member = _Member(service, log, _plugged_at_boot(spec), scrollback)
            except OSError as error:
                raise LabError(f"guest {name}: cannot be started: {error.strerror}") from None
            on_error.callback(member.terminal.close)
            self._write_down(member)
            on_error.pop_all()
        self._look_after(name, member)
        self._events.publish({"event": "guest_started", "guest": name, "pid": service.guest.pid})

    async def _give_up(self, guest: Guest) -> None:
        """End a guest that has only just been started."""
        await guest.stop(term_timeout=0)
        self._keeper.groups[guest.spec.umid].forget()

    async def _resume(self, name: str, thing: Thing, group: KeptGroup) -> None:
        meta = thing.meta
        spec = TypeAdapter(GuestSpec).validate_python(meta["spec"])
        if not _covers(asdict(spec), meta["spec"]):
            raise ValueError(f"its description has what this version does not know: {meta['spec']}")
        ready, plugged = bool(meta["ready"]), dict(meta["plugged"])
        lock, output, channel, terminal, scrollback_fd = thing.fds
        handle = GuestHandle(meta["memory_path"], meta["started_at"], (lock, output, channel, terminal))
        async with contextlib.AsyncExitStack() as on_error:
            log = on_error.enter_context(self._open_log(name, fresh=False))
            size = os.fstat(log.fileno()).st_size
            earlier = os.pread(log.fileno(), TAIL_SIZE, max(0, size - TAIL_SIZE))
            console = Console(log, earlier=earlier, total=size)
            guest = Guest.adopt(spec, self._base, handle, console, group, ready=ready)
            # Its descriptors are in use from here on.
            del self._keeper.things[f"guest/{name}"]
            on_error.push_async_callback(guest.let_go)
            scrollback = Scrollback(scrollback_fd)
            on_error.callback(scrollback.close)
            member = _Member(GuestService(guest), log, plugged, scrollback)
            on_error.pop_all()
        watch_end(group, guest.ended)
        if ready:
            member.service.assume_ready()
        self._look_after(name, member)
        self._events.publish({"event": "guest_resumed", "guest": name, "pid": guest.pid})

    def _look_after(self, name: str, member: _Member) -> None:
        self._members[name] = member
        member.ready = asyncio.create_task(self._watch(name, member))

    async def _watch(self, name: str, member: _Member) -> None:
        """Publish that a guest is ready, and its end."""
        if not member.service.is_ready:
            with contextlib.suppress(UmlabError):
                await member.service.ready(READY_TIMEOUT)
                self._write_down(member)
                self._events.publish({"event": "guest_ready", "guest": name})
        status = await member.guest.wait()
        self._events.publish({"event": "guest_ended", "guest": name, "status": status})

    async def _remove(self, name: str, member: _Member) -> None:
        await member.service.stop()
        await self._let_go(member)
        del self._members[name]
        self._keeper.drop(f"guest/{name}")
        self._keeper.groups[name].forget()
        self._events.publish({"event": "guest_removed", "guest": name})

    async def _let_go(self, member: _Member) -> None:
        for task in (member.ready, member.resizing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        member.terminal.close()
        member.scrollback.close()
        await member.guest.let_go()
        member.log.close()

    def _write_down(self, member: _Member) -> None:
        """Have the keeper hold what another daemon needs to take a guest over."""
        handle = member.guest.handle()
        meta = {
            "spec": asdict(member.guest.spec),
            "memory_path": handle.memory_path,
            "started_at": handle.started_at,
            "ready": member.service.is_ready,
            "plugged": member.plugged,
        }
        self._keeper.put(f"guest/{member.service.umid}", meta, (*handle.fds, member.scrollback.fd))

    def _open_log(self, name: str, *, fresh: bool) -> BinaryIO:
        folder = self._folder(name)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            return open(folder / "console.log", "w+b" if fresh else "a+b", buffering=0)
        except OSError as error:
            raise LabError(f"guest {name}: no console log in {folder}: {error.strerror}") from None

    async def _ask(self, member: _Member, device: str) -> DeviceView:
        if device in member.plugged and device.startswith(_NICS):
            return DeviceView(device, member.plugged[device])
        return DeviceView(device, await member.service.mconsole.config_get(device))


def _plugged_at_boot(spec: GuestSpec) -> dict[str, str]:
    plugged = dict(nic_settings(spec.nics))
    if isinstance(spec.root, DiskRoot):
        plugged["ubd0"] = spec.root.setting
    return plugged


def _covers(known: Any, record: Any) -> bool:
    """Say whether everything that is in a record is in what was made of it."""
    if isinstance(record, dict):
        return all(key in known and _covers(known[key], value) for key, value in record.items())
    if isinstance(record, list):
        return len(known) == len(record) and all(map(_covers, known, record))
    return bool(known == record)


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
