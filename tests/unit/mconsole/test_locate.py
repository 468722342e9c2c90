"""Where a guest's console is looked for, in the original's order."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlab.errors import MconsoleUnreachable
from umlab.mconsole.locate import candidates, locate, pid_file


@pytest.fixture
def home(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(short_dir))
    return short_dir


def run_directory(parent: Path, name: str) -> Path:
    directory = parent / name
    directory.mkdir(parents=True)
    (directory / "mconsole").touch()
    return directory


def test_umid_is_looked_for_at_home_first(home: Path) -> None:
    directory = run_directory(home / ".uml", "left")
    assert locate("left") == str(directory / "mconsole")
    assert candidates("left") == [str(directory / "mconsole"), "/tmp/uml/left/mconsole", "left"]


def test_run_directory_names_its_guest(home: Path) -> None:
    directory = run_directory(home / "elsewhere", "left")
    assert locate(str(directory)) == str(directory / "mconsole")


def test_path_of_a_socket_is_taken_as_it_is(home: Path) -> None:
    directory = run_directory(home / "elsewhere", "left")
    assert locate(str(directory / "mconsole")) == str(directory / "mconsole")


def test_relative_path_is_taken_as_well(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_directory(home, "here")
    monkeypatch.chdir(home)
    assert locate("here") == "here/mconsole"


def test_unknown_umid_names_every_place(home: Path) -> None:
    with pytest.raises(MconsoleUnreachable) as caught:
        locate("nosuch")
    places = f"{home}/.uml/nosuch/mconsole, /tmp/uml/nosuch/mconsole, nosuch"
    assert str(caught.value) == f"guest nosuch does not run: nothing at {places}"


def test_unknown_path_names_itself_only(home: Path) -> None:
    with pytest.raises(MconsoleUnreachable) as caught:
        locate(f"{home}/x")
    assert str(caught.value) == f"guest {home}/x does not run: nothing at {home}/x"


def test_empty_name_is_no_guest(home: Path) -> None:
    with pytest.raises(MconsoleUnreachable, match="no guest has an empty name"):
        locate("")


def test_without_home_the_other_places_count(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    assert candidates("left") == ["/tmp/uml/left/mconsole", "left"]


def test_pid_file_is_beside_the_socket() -> None:
    assert pid_file("/run/x/left/mconsole") == "/run/x/left/pid"
