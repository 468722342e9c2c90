"""Guests of labs and others, each asked the way that it is reached."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.lab_thread import LabThread
from umlab.client import console as module
from umlab.client.console import GuestConsole, find_console, labelled, running_guests
from umlab.daemon.place import GUESTS
from umlab.errors import (
    LabNotRunning,
    LocalProtocolError,
    MconsoleError,
    MconsoleUnreachable,
    NoSuchGuest,
)
from umlab.mconsole.command import Command, proc, version
from umlab.mconsole.fleet import AsyncFleet
from umlab.testing import SimulatedGuests
from umlab.testing.fault import garbage, silent


@pytest.fixture(autouse=True)
def _only_ours(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other guests of this machine are no matter."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    monkeypatch.setenv("HOME", str(short_dir))
    monkeypatch.setattr("umlab.client.find.process_roots", list)
    monkeypatch.setattr("umlab.client.find.usual_roots", lambda: [str(short_dir / ".uml")])


async def test_each_guest_is_asked_the_way_that_it_is_reached(short_dir: Path) -> None:
    (short_dir / ".uml").mkdir()
    with SimulatedGuests(short_dir / ".uml") as guests, LabThread(short_dir, "lan", guests=("left",)) as lab:
        guests.add("right")
        consoles = labelled([find_console("left"), find_console("right")])
        assert [(each.name, each.lab, each.path) for each in consoles.values()] == [
            ("left", "lan", None),
            ("right", None, str(short_dir / ".uml/right/mconsole")),
        ]
        outcomes = await AsyncFleet(consoles).run(proc("loadavg"))
        assert [each.output for each in outcomes.values()] == [
            "mconsole proc loadavg",
            "0.00 0.00 0.00 1/38 736\n",
        ]
        assert await asyncio.to_thread(lab.call, lambda held: held.asked) == [
            ("mconsole", ("proc loadavg", 30.0))
        ]
        for console in consoles.values():
            await console.check()
        assert [each.name for each in await consoles["left"].devices()] == ["mem", "ubda"]
        assert await consoles["right"].devices() == []


async def test_guest_is_seen_as_it_is(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short_dir / ".uml").mkdir()
    with SimulatedGuests(short_dir / ".uml") as guests:
        web = guests.add("web1", release="6.12.3")
        console = find_console("web1")
        web.kernel.facts.load = (0.5, 0.25, 12.0)
        vitals = await console.vitals()
        assert (vitals.state, vitals.release, vitals.load) == ("answers", "6.12.3", (0.5, 0.25, 12.0))
        web.kernel.stopped = True
        assert (await console.vitals()).state == "stopped"
        web.kernel.stopped = False
        web.set_fault(garbage())
        assert (await console.vitals()).state == "garbled"
        web.set_fault(silent)
        monkeypatch.setattr(module, "ANSWER_TIME", 0.1)
        assert (await console.vitals()).state == "silent"
        web.end()
        assert (await console.vitals()).state == "unreachable"


async def test_guest_of_a_lab_is_as_its_daemon_says(short_dir: Path) -> None:
    assert (await GuestConsole("left", lab="lan").vitals()).state == "unreachable"
    with LabThread(short_dir, "lan", guests=("left",)) as lab:
        told = await asyncio.to_thread(lab.call, lambda held: held.held("left").vitals)
        assert await GuestConsole("left", lab="lan").vitals() == told
        assert (await GuestConsole("right", lab="lan").vitals()).state == "unreachable"


async def test_errors_are_those_of_the_guest(short_dir: Path) -> None:
    (short_dir / ".uml").mkdir()
    with SimulatedGuests(short_dir / ".uml") as guests, LabThread(short_dir, "lan", guests=("left",)):
        right = guests.add("right")
        console = find_console("right")
        with pytest.raises(MconsoleError, match="guest right: bogus: Unknown command"):
            await console.run(Command("bogus"))
        right.die()
        for ask in (console.check(), console.run(version())):
            with pytest.raises(MconsoleUnreachable, match="guest right does not run"):
                await ask
        gone = GuestConsole("nobody", lab="lan")
        for ask in (gone.check(), gone.run(version())):
            with pytest.raises(NoSuchGuest):
                await ask
        with pytest.raises(LabNotRunning):
            await GuestConsole("left", lab="ring").run(version())
        for long in (console, find_console("left")):
            with pytest.raises(LocalProtocolError, match="at most 511 bytes, not 516"):
                await long.run(Command(f"proc {'x' * 511}"))
        with pytest.raises(LocalProtocolError, match="is not UTF-8"):
            await find_console("left").run(Command("log \udcff"))


async def test_guests_are_found_wherever_they_are(short_dir: Path) -> None:
    """Those of a lab's daemon once, though their run directories are there; those of a dead one directly."""
    other = short_dir / "other"
    lab_guest, orphan = (short_dir / "umlab" / lab / GUESTS / "left" for lab in ("lan", "ring"))
    for directory in (other, lab_guest, orphan):
        directory.mkdir(parents=True, mode=0o700)
    with (
        SimulatedGuests(other) as others,
        SimulatedGuests(lab_guest) as members,
        SimulatedGuests(orphan) as orphans,
        LabThread(short_dir, "lan", guests=("left", "ended")) as lab,
    ):
        others.add("left")
        others.add("dead").die()
        members.add("left")
        orphans.add("lonely")

        def end(held: object) -> None:
            lab.lab.guest_by_name["ended"].end()

        await asyncio.to_thread(lab.call, end)
        found = labelled(await running_guests([str(other)]))
        assert sorted(found) == sorted([str(other / "left/mconsole"), "lan/left", "lonely"])
        assert found["lonely"].path == str(orphan / "lonely/mconsole")
        assert sorted(labelled(await running_guests())) == ["left", "lonely"]


def test_guests_have_the_shortest_name_that_is_enough() -> None:
    left, right = GuestConsole("left", lab="lan"), GuestConsole("right", lab="lan")
    path = GuestConsole("left", path="/tmp/uml/left/mconsole")
    assert labelled([left, right, left]) == {"left": left, "right": right}
    assert list(labelled([left, right, path])) == ["lan/left", "right", "/tmp/uml/left/mconsole"]
