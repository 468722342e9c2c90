"""The guests of a lab, by name: held by the keeper, logged, with terminals and devices."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

from umlab._name import check_name
from umlab.console.feed import ScreenFeed
from umlab.console.scrollback import Scrollback
from umlab.daemon import cable
from umlab.daemon.disk import prepare_disk
from umlab.daemon.event_log import EventLog
from umlab.daemon.guest import GuestService
from umlab.daemon.guest_log import GuestLog
from umlab.daemon.guest_member import (
    LOG_CONSOLE,
    TERMINAL_CONSOLE,
    Member,
    Remains,
    plugged_at_boot,
    remains,
)
from umlab.daemon.guest_notify import GuestNotify, notify_path
from umlab.daemon.journal import UNUSABLE
from umlab.daemon.place import GUESTS
from umlab.daemon.socket_pair import SocketPairs
from umlab.daemon.switch import SwitchService
from umlab.daemon.view import GuestView
from umlab.daemon.watchdog import Watchdog
from umlab.errors import AlreadyExists, LabError, NoSuchGuest, TransportError, UmlabError
from umlab.guest.cmdline import GuestSpec
from umlab.guest.process import Guest
from umlab.keeper.link import KeeperLink, KeptGroup, Thing, end_stray, watch_end
from umlab.transports.fd import FdListener
from umlab.transports.socketfile import SocketFile

_log = logging.getLogger(__name__)

#: Seconds for a guest's agent to greet; a slow machine, or a root without an agent, take longer.
READY_TIMEOUT = 120.0
#: Seconds for processes that nobody looked after to be gone, whose name is wanted anew.
_STRAY_TIMEOUT = 15.0
#: What the files of each console's output are called.
_LOG_STEMS = {LOG_CONSOLE: "console", TERMINAL_CONSOLE: TERMINAL_CONSOLE}


class GuestSet:
    """All guests of one daemon.

    Args:
        runtime: The lab's directory for sockets; guests have theirs below it.
        state: The lab's directory for logs; each guest has its own in it.
        keeper: Who holds the guests.
        events: Where their ends are published.
        listener_of: Returns where a switch, by name, takes the sockets of ``fd`` NICs.

    Attributes:
        watchdog: Who notices when one answers no more.
    """

    def __init__(
        self,
        runtime: Path,
        state: Path,
        keeper: KeeperLink,
        events: EventLog,
        listener_of: Callable[[str], FdListener],
    ) -> None:
        self.watchdog = Watchdog(events)
        self._base = str(runtime / GUESTS)
        self._logs = state
        self.feed = ScreenFeed()
        self._keeper = keeper
        self._events = events
        self._listener_of = listener_of
        self._members: dict[str, Member] = {}
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

    def find(self, name: str) -> Member:
        """Return a guest with all that belongs to it.  Raises NoSuchGuest."""
        try:
            return self._members[name]
        except KeyError:
            raise NoSuchGuest(name) from None

    def lock(self, name: str) -> asyncio.Lock:
        """Return what is held while a guest is started, changed or removed."""
        return self._locks.setdefault(name, asyncio.Lock())

    def write_down(self, member: Member) -> None:
        """Have the keeper hold what another daemon needs to take a guest over."""
        member.write_down(self._keeper)

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
        async with self.lock(spec.umid):
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
        async with self.lock(name):
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
            name, member = self._members.popitem()
            self.watchdog.forget(name)
            await member.let_go()

    async def set_down(self, switch: SwitchService, pid: int | None = None) -> None:
        """Set the interfaces down whose connections a switch is about to end; see :mod:`umlab.daemon.cable`.

        Args:
            switch: The switch.
            pid: Only of the guest with this main process.
        """
        members = [each for each in self._members.values() if pid in (None, each.guest.pid)]
        await asyncio.gather(*(cable.set_down(each.service, each.plugged, switch) for each in members))

    # What is shown.

    def views(self) -> list[GuestView]:
        """Return every guest, by name."""
        return [self.view(name) for name in self.names()]

    def view(self, name: str) -> GuestView:
        """Return a guest.  Raises NoSuchGuest."""
        member = self.find(name)
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
            consoles=(LOG_CONSOLE, TERMINAL_CONSOLE),
            mconsole=guest.run.mconsole_path,
            answers=self.watchdog.answers(name),
        )

    # Below.

    def _folder(self, name: str) -> Path:
        return self._logs / name

    async def _start(self, spec: GuestSpec) -> None:
        name = spec.umid
        if (stray := self._keeper.groups.get(name)) is not None:
            await stray.gone(_STRAY_TIMEOUT)
        await asyncio.to_thread(prepare_disk, spec, self._logs)
        async with contextlib.AsyncExitStack() as on_error:
            logs = self._open_logs(name, on_error, fresh=True)
            try:
                os.makedirs(self._base, mode=0o700, exist_ok=True)
                scrollback = Scrollback()
                on_error.callback(scrollback.close)
                file = self._notify_file(name)
                on_error.callback(file.close)
                with SocketPairs(spec, self._listener_of) as pairs:
                    service = await GuestService.start(
                        spec,
                        self._base,
                        console=logs[LOG_CONSOLE].console,
                        starter=self._keeper,
                        terminal=True,
                        nic_fds=pairs.guest_ends,
                        notify=file.path,
                    )
                    on_error.push_async_callback(self._give_up, service.guest)
                    pairs.plug(service.guest.pid)
                notify = GuestNotify(name, file, self._events)
                member = Member(service, logs, self.feed, plugged_at_boot(spec), scrollback, notify)
            except OSError as error:
                raise LabError(f"guest {name}: cannot be started: {error.strerror}") from None
            on_error.callback(member.terminal.close)
            self.write_down(member)
            on_error.pop_all()
        self._look_after(name, member)
        self._events.publish({"event": "guest_started", "guest": name, "pid": service.guest.pid})

    async def _give_up(self, guest: Guest) -> None:
        """End a guest that has only just been started."""
        await guest.stop(term_timeout=0)
        self._keeper.groups[guest.spec.umid].forget()

    async def _resume(self, name: str, thing: Thing, group: KeptGroup) -> None:
        left = remains(thing)
        async with contextlib.AsyncExitStack() as on_error:
            logs = self._open_logs(name, on_error, fresh=False)
            console = logs[LOG_CONSOLE].console
            notify = self._kept_notify(left)
            if notify is not None:
                on_error.callback(notify.let_go)
            guest = Guest.adopt(left.spec, self._base, left.handle, console, group, ready=left.ready)
            # Its descriptors are in use from here on.
            del self._keeper.things[f"guest/{name}"]
            on_error.push_async_callback(guest.let_go)
            if left.notify_fd is not None:
                os.close(left.notify_fd)
            scrollback = Scrollback(left.scrollback_fd)
            on_error.callback(scrollback.close)
            member = Member(GuestService(guest), logs, self.feed, left.plugged, scrollback, notify)
            member.boot = left.boot
            on_error.pop_all()
        watch_end(group, guest.ended)
        if left.ready:
            member.service.assume_ready()
        self._look_after(name, member)
        self._events.publish({"event": "guest_resumed", "guest": name, "pid": guest.pid})

    def _notify_file(self, name: str) -> SocketFile:
        try:
            return SocketFile(notify_path(self._base, name), socket.SOCK_DGRAM)
        except TransportError as error:
            raise LabError(f"guest {name}: cannot be started: {error}") from None

    def _kept_notify(self, left: Remains) -> GuestNotify | None:
        """Return a guest's notifications, on a duplicate of what is left of them.  Raises OSError."""
        if left.notify_fd is None:
            return None
        fd = os.dup(left.notify_fd)
        try:
            sock = socket.socket(fileno=fd)
        except OSError:
            os.close(fd)
            raise
        file = SocketFile.adopt(notify_path(self._base, left.spec.umid), sock)
        return GuestNotify(left.spec.umid, file, self._events, booted=left.booted)

    def _look_after(self, name: str, member: Member) -> None:
        self._members[name] = member
        member.tasks.add(asyncio.create_task(self._watch(name, member)))
        if member.notify is not None:
            member.notify.listen(lambda: self._on_boot(member))
        if member.service.is_ready or member.booted:
            self.watchdog.watch(member)

    def _on_boot(self, member: Member) -> None:
        """Its kernel has set up its management console, for the first time or after a reboot."""
        self.write_down(member)
        self.watchdog.watch(member)

    async def _watch(self, name: str, member: Member) -> None:
        """Publish that a guest is ready, and its end."""
        if not member.service.is_ready:
            with contextlib.suppress(UmlabError):
                await member.service.ready(READY_TIMEOUT)
                self.write_down(member)
                self._events.publish({"event": "guest_ready", "guest": name})
                if not member.booted:
                    self.watchdog.watch(member)
        status = await member.guest.wait()
        self.watchdog.forget(name)
        if member.notify is not None:
            member.notify.read_rest()
        self._events.publish({"event": "guest_ended", "guest": name, "status": status})

    async def _remove(self, name: str, member: Member) -> None:
        await member.service.stop()
        self.watchdog.forget(name)
        if member.notify is not None:
            member.notify.close()
        await member.let_go()
        del self._members[name]
        self._keeper.drop(f"guest/{name}")
        self._keeper.groups[name].forget()
        self._events.publish({"event": "guest_removed", "guest": name})

    def _open_logs(
        self, name: str, on_error: contextlib.AsyncExitStack, *, fresh: bool
    ) -> dict[str, GuestLog]:
        folder = self._folder(name)
        logs = {}
        try:
            for console, stem in _LOG_STEMS.items():
                logs[console] = GuestLog(folder, stem, fresh=fresh)
                on_error.callback(logs[console].close)
        except OSError as error:
            raise LabError(f"guest {name}: no console log in {folder}: {error.strerror}") from None
        return logs
