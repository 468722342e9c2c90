"""The guests that a console knows, which come and go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.deadline import wait_until_async
from umlab.cli import console_guest
from umlab.cli.console_guest import Guests
from umlab.client.console import GuestConsole
from umlab.errors import LabError, NoSuchGuest
from umlab.testing import SimulatedGuests


class Running:
    """What runs; the next one who looks is told only when ``told`` is set."""

    def __init__(self) -> None:
        self.guests: list[GuestConsole] = []
        self.told: asyncio.Event | None = None

    async def __call__(self, uml_dirs: Sequence[str]) -> list[GuestConsole]:
        guests, told, self.told = list(self.guests), self.told, None
        if told is not None:
            await told.wait()
        return guests


@pytest.fixture
async def running(monkeypatch: pytest.MonkeyPatch) -> Running:
    made = Running()
    monkeypatch.setattr(console_guest, "running_guests", made)
    return made


def guest(name: str, lab: str = "lan") -> GuestConsole:
    return GuestConsole(name, lab=lab)


async def test_only_guest_is_the_present_one(running: Running) -> None:
    guests = Guests()
    await guests.refresh()
    assert (guests.known, guests.present) == ({}, "")
    running.guests = [guest("a")]
    await guests.refresh()
    assert guests.present == "a"
    running.guests = [guest("b"), guest("c")]
    await guests.refresh()
    assert list(guests.known) == ["b", "c", "a"], "the present one stays"
    assert guests.present == "a"


async def test_present_guest_keeps_its_place_when_its_name_has_to_be_longer(running: Running) -> None:
    guests = Guests()
    running.guests = [guest("a")]
    await guests.refresh()
    running.guests = [guest("a", "ring"), guest("a")]
    await guests.refresh()
    assert (list(guests.known), guests.present) == (["ring/a", "lan/a"], "lan/a")


async def test_guests_that_are_named_are_all(running: Running) -> None:
    running.guests = [guest("x")]
    guests = Guests([guest("b"), guest("a")])
    await guests.refresh()
    assert (list(guests.known), guests.present) == (["b", "a"], "b")
    assert list(await guests.choose(["all"])) == ["b", "a"]
    assert list(await guests.choose(["lan/a"])) == ["a"]
    with pytest.raises(LabError, match="no guest is called x or y"):
        await guests.choose(["a", "x", "y"])


async def test_nobody_is_chosen_where_nobody_is(running: Running) -> None:
    for patterns in (["all"], []):
        with pytest.raises(LabError, match="no guest is called"):
            await Guests().choose(patterns)


async def test_switching_is_not_undone_by_who_looks_meanwhile(running: Running, short_dir: Path) -> None:
    with SimulatedGuests(short_dir) as simulated:
        path = str(simulated.add("other").path)
        running.guests = [guest("a")]
        guests = Guests()
        await guests.refresh()
        running.told = told = asyncio.Event()
        looking = asyncio.create_task(guests.refresh())
        await wait_until_async(lambda: running.told is None, 10, "somebody who looks")
        await guests.switch(path)
        told.set()
        await looking
        assert (guests.present, list(guests.known)) == ("other", ["a", "other"])
        await guests.refresh()
        assert guests.present == "other"
        with pytest.raises(NoSuchGuest):
            await guests.switch("nobody-of-this-name")
        assert guests.present == "other"
