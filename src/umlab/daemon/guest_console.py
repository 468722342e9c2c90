"""The consoles of a lab's guests: what they have printed, and their terminals."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from umlab.console.terminal import Terminal
from umlab.daemon.guest_member import LOG_CONSOLE, TERMINAL_CONSOLE
from umlab.daemon.guest_set import GuestSet
from umlab.daemon.view import ConsoleView, LogPiece
from umlab.errors import NoSuchConsole


class GuestConsoles:
    """The consoles of all guests.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: GuestSet) -> None:
        self._guests = guests

    def log(self, name: str, start: int, limit: int) -> LogPiece:
        """Return console output; from an offset on (negative: from the end), at most so many bytes."""
        member = self._guests.find(name)
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
        guest = self._guests.find(name).guest
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

    def views(self, name: str) -> list[ConsoleView]:
        """Return the consoles of a guest.  Raises NoSuchGuest."""
        terminal = self._guests.find(name).terminal
        return [
            ConsoleView(LOG_CONSOLE, "log", 0),
            ConsoleView(TERMINAL_CONSOLE, "terminal", terminal.viewers),
        ]

    def terminal(self, name: str, console: str) -> Terminal:
        """Return a terminal.  Raises NoSuchGuest, NoSuchConsole."""
        member = self._guests.find(name)
        if console != TERMINAL_CONSOLE:
            raise NoSuchConsole(name, console)
        return member.terminal
