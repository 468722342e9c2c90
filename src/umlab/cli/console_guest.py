"""The guests that a console knows, and the one it talks to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from umlab.cli.console_line import select
from umlab.client.console import GuestConsole, find_console, labelled, running_guests
from umlab.client.find import Lookup
from umlab.errors import LabError


class Guests:
    """Guests by the names that they have here.

    Args:
        named: Those that the user named; without any it is all that run, looked for again and again.
        uml_dirs: Directories to look in beside the usual ones.

    Attributes:
        known: The guests, by name.
        present: The name of the one that is talked to, ``""`` for none.
    """

    def __init__(self, named: Iterable[GuestConsole] = (), uml_dirs: Sequence[str] = ()) -> None:
        self.known = labelled(named)
        self.present = next(iter(self.known), "")
        self._named = bool(self.known)
        self._uml_dirs = uml_dirs

    async def refresh(self) -> None:
        """Look for guests, unless the user has named some; the present one stays, whatever became of it."""
        if self._named:
            return
        running = await running_guests(self._uml_dirs)
        # Looked up now: the user may have switched meanwhile.
        present = self.known.get(self.present)
        self._know([*running, *([present] if present else [])], present)
        if present is None and len(self.known) == 1:
            self.present = next(iter(self.known))

    async def choose(self, patterns: Iterable[str]) -> dict[str, GuestConsole]:
        """Return the guests that some patterns mean.

        Raises:
            LabError: There is none for one of them.
        """
        await self.refresh()
        names = {label: (label, guest.name, guest.place) for label, guest in self.known.items()}
        chosen, unmatched = select(patterns, names)
        if unmatched or not chosen:
            raise LabError(
                f"no guest is called {' or '.join(unmatched) or 'anything'}; see them with: guests"
            )
        return {label: self.known[label] for label in chosen}

    async def switch(self, name: str) -> None:
        """Talk to another guest from now on; the present one stays where there is no such.

        Raises what `find_console` and `GuestConsole.check` raise.
        """
        await self.refresh()
        guest = self.known.get(name)
        if guest is None:
            guest = await asyncio.to_thread(find_console, name, Lookup(self._uml_dirs))
        await guest.check()
        self._know([*self.known.values(), guest], guest)

    def _know(self, guests: Iterable[GuestConsole], present: GuestConsole | None) -> None:
        self.known = labelled(guests)
        place = present.place if present else None
        self.present = next((label for label, each in self.known.items() if each.place == place), "")
