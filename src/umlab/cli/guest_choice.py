"""Which guests of labs a command is for."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

from umlab.cli.console_line import select
from umlab.cli.target import guest_place
from umlab.client.console import GuestConsole, labelled, running_guests
from umlab.client.find import find_guest
from umlab.client.sync import Client
from umlab.errors import LabError, LabNotRunning, NoSuchGuest

_PATTERN = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Choice:
    """A guest of a lab.

    Attributes:
        label: The shortest name that no other of them has.
        lab: Its lab.
        guest: Its name there.
    """

    label: str
    lab: str
    guest: str


def choose(names: Sequence[str], *, everyone: bool) -> list[Choice]:
    """Return guests, each once, in the order of their names.

    Args:
        names: ``GUEST``, ``LAB/GUEST``, or patterns of these; with ``everyone`` the lab, or nothing where
            there is only one.
        everyone: All guests of the lab that run.

    Raises:
        NoSuchGuest: A name or pattern that no guest has.
        LabNotRunning: There is no such lab.
        LabError: Several labs have such a guest, no lab's daemon speaks for it, or there is not one lab;
            with ``everyone`` the name is a guest's.
    """
    running = asyncio.run(running_guests()) if everyone or any(map(_PATTERN.search, names)) else []
    running = [each for each in running if each.lab is not None]
    if everyone:
        return _choices(_of_lab(running, names[0] if names else None))
    known = {each.place: each for each in running}
    guests: list[GuestConsole] = []
    for name in dict.fromkeys(names):
        if not _PATTERN.search(name):
            lab, guest = guest_place(name)
            guests.append(GuestConsole(guest, lab))
            continue
        found, _ = select([name], {place: (each.name, place) for place, each in known.items()})
        if not found:
            raise NoSuchGuest(name)
        guests += (known[place] for place in found)
    return _choices(guests)


def _of_lab(running: list[GuestConsole], lab: str | None) -> list[GuestConsole]:
    labs = sorted({str(each.lab) for each in running})
    if lab is None and len(labs) > 1:
        raise LabError(f"several labs run; write one of {', '.join(labs)}")
    guests = [each for each in running if lab in (None, each.lab)]
    if not guests:
        raise LabError("no guest runs") if lab is None else _empty(lab)
    return guests


def _empty(lab: str) -> LabError:
    """Return the error for a lab of which no guest runs, which may not be meant to be one."""
    try:
        Client(lab).lab()
    except LabNotRunning as not_running:
        try:
            place = find_guest(lab)
        except NoSuchGuest:
            return not_running
        except LabError as error:
            return error
        if place.lab is None:
            return not_running
        return LabError(
            f"{lab} is a guest, --all takes a lab: write {lab} without --all, or --all {place.lab}"
        )
    return LabError(f"{lab}: no guest runs")


def _choices(guests: list[GuestConsole]) -> list[Choice]:
    return [Choice(label, str(each.lab), each.name) for label, each in labelled(guests).items()]
