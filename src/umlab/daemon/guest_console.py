"""The consoles of a lab's guests: what they have printed, and their terminals."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from umlab.console.terminal import Terminal
from umlab.daemon.guest_line import device_of, open_line
from umlab.daemon.guest_log import GuestLog
from umlab.daemon.guest_member import LOG_CONSOLE, TERMINAL_CONSOLE, Member
from umlab.daemon.guest_set import GuestSet
from umlab.daemon.view import ConsoleView, LogPiece, LogTime, ScreenView
from umlab.errors import MconsoleError, NoSuchConsole, StateError
from umlab.guest.cmdline import AGENT_LINES
from umlab.mconsole import command as commands


class GuestConsoles:
    """The consoles of all guests.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: GuestSet) -> None:
        self._guests = guests

    def log(self, name: str, console: str, start: int, limit: int) -> LogPiece:
        """Return console output; from an offset on (negative: from the end), at most so many bytes.

        Raises NoSuchGuest, NoSuchConsole.
        """
        return self._log(name, console).read(start, limit)

    def log_times(
        self, name: str, console: str, start: int, since: float | None, limit: int
    ) -> list[LogTime]:
        """Return when console output was printed.  Raises NoSuchGuest, NoSuchConsole.

        Args:
            name: The guest.
            console: The console.
            start: Begin with what stands at this offset.
            since: Begin with what is not older than this time instead, in seconds since 1970.
            limit: Most entries.
        """
        log = self._log(name, console)
        return log.times(start, limit) if since is None else log.times_since(since, limit)

    async def wait_log(self, name: str, console: str, end: int) -> None:
        """Wait until there is output behind an offset, or the guest has ended.

        Raises NoSuchGuest, NoSuchConsole.
        """
        waiting: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self._log(name, console).console.grow(end)),
            asyncio.ensure_future(self._guests.find(name).guest.wait()),
        ]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def views(self, name: str) -> list[ConsoleView]:
        """Return the consoles of a guest, lines of its own where somebody has looked.  Raises NoSuchGuest."""
        member = self._guests.find(name)
        terminals = {TERMINAL_CONSOLE: member.terminal, **dict(sorted(member.lines.items()))}
        return [
            ConsoleView(LOG_CONSOLE, "log", 0, 0),
            *(
                ConsoleView(console, "terminal", terminal.count("write"), terminal.count("read"))
                for console, terminal in terminals.items()
                if terminal.is_open or console == TERMINAL_CONSOLE
            ),
        ]

    async def terminal(self, name: str, console: str) -> Terminal:
        """Return a terminal, opened where the guest's kernel has made it itself.

        Raises NoSuchGuest, NoSuchConsole.
        """
        member = self._guests.find(name)
        if console == TERMINAL_CONSOLE:
            return member.terminal
        device = device_of(console)
        if device is None or console in (LOG_CONSOLE, *AGENT_LINES):
            raise NoSuchConsole(name, console)
        async with self._guests.lock(name):
            if not ((known := member.lines.get(console)) and known.is_open):
                member.lines[console] = await self._open(member, console, device)
            return member.lines[console]

    async def screen(self, name: str, console: str) -> ScreenView:
        """Return what a terminal shows.  Raises NoSuchGuest, NoSuchConsole, StateError."""
        screen = await (await self.terminal(name, console)).screen()
        rows, columns = screen.size
        row, column = screen.cursor
        return ScreenView(
            rows,
            columns,
            tuple(screen.lines()),
            row + 1,
            min(column, columns - 1) + 1,
            screen.cursor_shown,
            screen.is_alternate,
        )

    def _log(self, name: str, console: str) -> GuestLog:
        log = self._guests.find(name).logs.get(console)
        if log is None:
            raise NoSuchConsole(name, console)
        return log

    async def _open(self, member: Member, console: str, device: str) -> Terminal:
        try:
            setting = await member.kernel.run(commands.config_get(console))
            fd = open_line(member.guest.pid, setting.strip())
            return Terminal(fd, self._guests.feed, on_resize=partial(member.tell_size, device))
        except (MconsoleError, StateError, OSError):
            raise NoSuchConsole(member.name, console) from None
