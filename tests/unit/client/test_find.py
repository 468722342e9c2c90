"""Where the guest of a name is."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.lab_thread import LabThread
from umlab.client import survey
from umlab.client.find import GuestPlace, Lookup, find_guest, guest_roots, lab_of
from umlab.errors import LabError, MconsoleUnreachable, NoSuchGuest
from umlab.mconsole.discover import Found, discover
from umlab.testing.guest import SimulatedGuests

STRANGER = 65534


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def simulated(held: ExitStack, directory: Path, umid: str) -> Path:
    """Start a guest in a directory that is made, and return its socket."""
    directory.mkdir(parents=True)
    return held.enter_context(SimulatedGuests(directory)).add(umid).path


def test_guest_of_a_lab_comes_first(runtime: Path, guests: SimulatedGuests) -> None:
    guests.add("left")
    other = guests.add("other")
    with LabThread(runtime, "lan", guests=("left",)):
        assert find_guest("left") == GuestPlace("left", "lan", None)
        assert find_guest("other") == GuestPlace("other", None, str(other.path))
    assert find_guest("left").lab is None


@pytest.mark.usefixtures("guests")
def test_daemon_that_is_busy_is_waited_for(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "ANSWER_TIME", 0.0)
    with LabThread(runtime, "lan", guests=("left",)):
        assert find_guest("left") == GuestPlace("left", "lan", None)


@pytest.mark.usefixtures("guests")
def test_lab_may_be_named(runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)), LabThread(runtime, "ring", guests=("left",)):
        assert find_guest("ring/left") == GuestPlace("left", "ring", None)
        with pytest.raises(
            LabError, match="several labs have a guest of that name; write lan/left or ring/left"
        ):
            find_guest("left")


def test_path_names_its_guest_whatever_is_there(
    runtime: Path, guests: SimulatedGuests, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(guests.add("left").path)
    place = GuestPlace("left", None, path)
    assert find_guest(path) == find_guest(os.path.dirname(path)) == place
    monkeypatch.chdir(runtime / "uml")
    assert find_guest("./left") == find_guest("./left/mconsole") == place
    (runtime / "console").touch()
    assert find_guest(f"{runtime}/console") == GuestPlace("console", None, f"{runtime}/console")
    with pytest.raises(MconsoleUnreachable, match=f"guest right does not run: nothing at {runtime}/right"):
        find_guest(f"{runtime}/right")


@pytest.mark.usefixtures("guests")
def test_unknown_guest_is_none() -> None:
    with pytest.raises(NoSuchGuest):
        find_guest("left")


def test_further_directories_are_looked_at(runtime: Path, guests: SimulatedGuests, held: ExitStack) -> None:
    path = simulated(held, runtime / "srv", "left")
    with pytest.raises(NoSuchGuest):
        find_guest("left")
    assert find_guest("left", [str(runtime / "srv")]) == GuestPlace("left", None, str(path))
    # One that lives is meant rather than one that is dead.
    dead = guests.add("left")
    dead.die()
    assert find_guest("left", [str(runtime / "srv")]) == GuestPlace("left", None, str(path))
    assert find_guest("left") == GuestPlace("left", None, str(dead.path))
    dead.start()
    with pytest.raises(LabError, match=f"several guests have that name; write {dead.path} or {path}"):
        find_guest("left", [str(runtime / "srv")])


def test_many_names_cost_one_look(
    runtime: Path, guests: SimulatedGuests, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup = Lookup()
    path = guests.add("other").path
    with LabThread(runtime, "lan", guests=("left",)):
        assert lookup.find("left") == GuestPlace("left", "lan", None)
    monkeypatch.setattr("umlab.client.find.survey", None)
    assert lookup.find("other") == GuestPlace("other", None, str(path))
    monkeypatch.setattr("umlab.client.find.discover", None)
    assert lookup.find("left") == GuestPlace("left", "lan", None)
    with pytest.raises(NoSuchGuest):
        lookup.find("right")


@pytest.mark.needs_root
def test_another_users_guest_is_reached_by_its_path_only(guests: SimulatedGuests) -> None:
    path = guests.add("left").path
    os.chown(path.parent, STRANGER, STRANGER)
    with pytest.raises(LabError, match=f"is another user's; to reach it all the same, write {path}"):
        find_guest("left")
    assert find_guest(str(path)) == GuestPlace("left", None, str(path))


@pytest.mark.usefixtures("guests")
def test_guest_of_a_lab_without_daemon_is_reached_itself(runtime: Path, held: ExitStack) -> None:
    path = simulated(held, runtime / "umlab/ring/g/left", "left")
    assert find_guest("left") == GuestPlace("left", None, str(path))
    listener = held.enter_context(socket.socket(socket.AF_UNIX))
    listener.bind(str(runtime / "umlab/ring/api.sock"))
    listener.listen()
    assert find_guest("left") == GuestPlace("left", None, str(path))
    (found,) = discover(guest_roots())
    assert lab_of(found) == "ring"


def test_lab_is_that_of_the_directory(runtime: Path) -> None:
    def lab(root: str) -> str | None:
        return lab_of(Found("x", f"{root}/x/mconsole", root, None, "dead"))

    assert lab(f"{runtime}/umlab/ring/g/left") == "ring"
    for root in (f"{runtime}/umlab/ring/left", f"{runtime}/other/ring/g/left", "/x", "/"):
        assert lab(root) is None


def test_all_directories_are_looked_at(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umlab.client.find.process_roots", lambda: ["/told"])
    (runtime / "umlab/lan/g/left").mkdir(parents=True)
    (runtime / "umlab/file").touch()
    roots = guest_roots(["/srv/x"])
    assert roots[:1] == [f"{runtime}/umlab/lan/g/left"]
    assert roots[1:] == [str(runtime / "nowhere"), "/srv/x", "/told"]
