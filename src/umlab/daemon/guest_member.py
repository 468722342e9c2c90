"""One guest of a lab, with all that belongs to it, and what the keeper holds of it.

The keeper has under ``guest/NAME`` what is needed to take a guest over: its description, and descriptors
that each have a name there, so that one kind more is no new format.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from umlab._boot import Boot
from umlab.console.feed import ScreenFeed
from umlab.console.scrollback import Scrollback
from umlab.console.terminal import Terminal
from umlab.daemon.guest import GuestService
from umlab.daemon.guest_log import GuestLog
from umlab.daemon.guest_notify import GuestNotify
from umlab.daemon.kernel import Kernel
from umlab.errors import CommandTimeout, GuestFailed, StateError
from umlab.guest.cmdline import DiskRoot, GuestSpec, nic_settings
from umlab.guest.process import Guest, GuestHandle
from umlab.keeper.link import KeeperLink, Thing

#: Seconds for a command that only changes a terminal's size.
_RESIZE_TIMEOUT = 5.0
#: Every guest's consoles: where its kernel logs, and its terminal.
LOG_CONSOLE, TERMINAL_CONSOLE = "con0", "con1"
_SCROLLBACK, _NOTIFY = "scrollback", "notify"


class Member:
    """One guest of a lab.

    Attributes:
        service: The guest and its management console.
        kernel: Its kernel, as everybody asks it.
        logs: What its consoles have printed, by name.
        plugged: Its NICs, disks and what else was plugged in, with settings,
        boot: in this boot of its kernel; ``None`` while nobody has looked which one it is.
        scrollback: What its terminal has shown.
        notify: What it says without being asked; ``None`` where an earlier version started it.
        terminal: Its terminal,
        lines: and those that its kernel has opened itself, by name, as far as somebody has looked.
        tasks: What is done for it in the background, ended by :meth:`let_go`.
    """

    def __init__(
        self,
        service: GuestService,
        logs: Mapping[str, GuestLog],
        feed: ScreenFeed,
        plugged: dict[str, str],
        scrollback: Scrollback,
        notify: GuestNotify | None,
    ) -> None:
        self.service = service
        self.kernel = Kernel(service.guest.run.mconsole_path, service.umid)
        self.logs = logs
        self.plugged = plugged
        self.boot: Boot | None = None
        self.scrollback = scrollback
        self.notify = notify
        self.lines: dict[str, Terminal] = {}
        self.terminal = Terminal(
            os.dup(service.guest.terminal),
            feed,
            scrollback=scrollback,
            on_resize=partial(self.tell_size, "tty1"),
            on_output=logs[TERMINAL_CONSOLE].console.feed,
        )
        self.tasks: set[asyncio.Task[None]] = set()
        self._resizing: asyncio.Task[None] | None = None
        self._sizes: dict[str, tuple[int, int]] = {}

    @property
    def name(self) -> str:
        """The guest's name."""
        return self.service.umid

    @property
    def guest(self) -> Guest:
        """The guest's process."""
        return self.service.guest

    @property
    def booted(self) -> bool:
        """Whether its kernel has said that its management console is up."""
        return self.notify is not None and self.notify.booted

    def write_down(self, keeper: KeeperLink) -> None:
        """Have the keeper hold what another daemon needs to take this guest over."""
        handle = self.guest.handle()
        names = [*handle.fds, _SCROLLBACK]
        fds = [*handle.fds.values(), self.scrollback.fd]
        if self.notify is not None:
            names.append(_NOTIFY)
            fds.append(self.notify.fd)
        meta = {
            "spec": asdict(self.guest.spec),
            "memory_path": handle.memory_path,
            "started_at": handle.started_at,
            "ready": self.service.is_ready,
            "booted": self.booted,
            "plugged": self.plugged,
            "boot": self.boot,
            "fds": names,
        }
        keeper.put(f"guest/{self.name}", meta, fds)

    async def let_go(self) -> None:
        """Stop looking after the guest, which runs on where it has not ended."""
        tasks = [*self.tasks, *([self._resizing] if self._resizing is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.kernel.close()
        if self.notify is not None:
            self.notify.let_go()
        for terminal in (self.terminal, *self.lines.values()):
            terminal.close()
        self.scrollback.close()
        await self.guest.let_go()
        for log in self.logs.values():
            log.close()

    def tell_size(self, device: str, rows: int, columns: int) -> None:
        """Tell the guest's programs how large a terminal is, which UML's consoles do not do by themselves.

        Args:
            device: The terminal's name in the guest, such as ``tty1``.
            rows: Its height.
            columns: Its width.
        """
        if not self.service.is_ready:
            return
        self._sizes[device] = rows, columns
        if self._resizing is None or self._resizing.done():
            self._resizing = asyncio.create_task(self._tell_sizes())

    async def _tell_sizes(self) -> None:
        with contextlib.suppress(CommandTimeout, GuestFailed, StateError):
            while self._sizes:
                device, (rows, columns) = self._sizes.popitem()
                await self.service.run(f"stty -F /dev/{device} rows {rows} cols {columns}", _RESIZE_TIMEOUT)


@dataclass(frozen=True, slots=True)
class Remains:
    """What an earlier daemon has left of a guest.

    Attributes:
        spec: Its description.
        handle: What takes it over; its descriptors belong to whoever does.
        scrollback_fd: What its terminal has shown; likewise.
        notify_fd: What it says without being asked; likewise.  ``None`` where it has no such socket.
        ready: Its agent has answered.
        booted: Its kernel has said that its management console is up.
        plugged: Its devices, with settings,
        boot: in this boot of its kernel.
    """

    spec: GuestSpec
    handle: GuestHandle
    scrollback_fd: int
    notify_fd: int | None
    ready: bool
    booted: bool
    plugged: dict[str, str]
    boot: Boot | None


def remains(thing: Thing) -> Remains:
    """Return what the keeper's record of a guest says.

    Raises:
        LookupError, TypeError, ValueError: It is of a version that this one does not understand.
    """
    meta = thing.meta
    spec: GuestSpec = TypeAdapter(GuestSpec).validate_python(meta["spec"])
    if not _covers(asdict(spec), meta["spec"]):
        raise ValueError(f"its description has what this version does not know: {meta['spec']}")
    fds: dict[str, int] = dict(zip(meta["fds"], thing.fds, strict=True))
    scrollback, notify = fds.pop(_SCROLLBACK), fds.pop(_NOTIFY, None)
    return Remains(
        spec,
        GuestHandle(meta["memory_path"], meta["started_at"], fds),
        scrollback,
        notify,
        bool(meta["ready"]),
        bool(meta.get("booted", False)),
        dict(meta["plugged"]),
        Boot(*boot) if (boot := meta.get("boot")) is not None else None,
    )


def plugged_at_boot(spec: GuestSpec) -> dict[str, str]:
    """Return the devices that a description gives a guest, with settings."""
    plugged = dict(nic_settings(spec.nics))
    if isinstance(spec.root, DiskRoot):
        plugged["ubda"] = spec.root.setting
    return plugged


def _covers(known: Any, record: Any) -> bool:
    """Say whether everything that is in a record is in what was made of it."""
    if isinstance(record, dict):
        return all(key in known and _covers(known[key], value) for key, value in record.items())
    if isinstance(record, list):
        return len(known) == len(record) and all(map(_covers, known, record))
    return bool(known == record)
