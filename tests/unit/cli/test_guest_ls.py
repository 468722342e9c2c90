"""``umlab guest ls``: how it shows the guests of a machine, and which of what dead ones left it removes."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from support.cli_run import Run
from support.fake_lab import FakeGuest
from support.lab_thread import LabThread
from umlab.cli.guest_ls import HEADINGS, SPARE
from umlab.cli.guest_state import state_text
from umlab.cli.page import Table, fitted
from umlab.daemon.place import KEEPER_LOCK
from umlab.daemon.view import GuestView, GuestVitals
from umlab.testing.fault import escapes, silent
from umlab.testing.guest import SimulatedGuests


@pytest.mark.usefixtures("guests")
def test_no_guest_is_no_error(run: Run) -> None:
    assert run("guest", "ls").out == "no guest runs\n"
    assert run("guest", "ls", "--json").out == ""


@pytest.mark.usefixtures("guests")
def test_guests_of_all_labs_are_listed(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)), LabThread(runtime, "ring", guests=("left",)) as ring:
        ring.call(lambda lab: lab.guest_by_name["left"].end())
        shown = run("guest", "ls")
        records = run("guest", "ls", "--json").records
    lines = [line.split("  ") for line in shown.out.splitlines()]
    words = [[word.strip() for word in line if word] for line in lines]
    assert words == [
        ["GUEST", "LAB", "STATE", "PID", "KERNEL", "UP", "LOAD", "MEMORY", "NICS"],
        ["left", "lan", "ready", "4711", "6.1.176", "26 h", "0.50", "24/96 MiB", "-"],
        ["left", "ring", "ended (0)", "-", "-", "-", "-", "-", "-"],
    ]
    facts = [(each["lab"], each["name"], each["state"], each["status"]) for each in records]
    assert facts == [("lan", "left", "ready", None), ("ring", "left", "ended", 0)]
    assert [each["release"] for each in records] == ["6.1.176", None]
    # What the API has of a guest, as scripts know it.
    assert (records[0]["kernel"], records[0]["memory"]) == ("/usr/bin/linux", 128 << 20)


def test_guest_that_others_started_is_listed(run: Run, runtime: Path, guests: SimulatedGuests) -> None:
    path = guests.add("other", pid=os.getpid()).path
    with LabThread(runtime, "lan", switches=("lan",)) as lan:
        lan.call(lambda lab: lab.add_port("lan", 3, pid=os.getpid()))
        shown = run("guest", "ls")
        (record,) = run("guest", "ls", "--json").records
    words = shown.out.splitlines()[1].split()
    assert words[:5] == ["other", "-", "answers", str(os.getpid()), "6.1.176"]
    assert words[-2:] == ["?", "lan:3"]
    known = {"lab": None, "name": "other", "state": "answers", "pid": os.getpid(), "status": None}
    assert record | known == record
    assert record["mconsole"] == str(path)
    assert record["memory_total"] == 113324 * 1024
    assert record["nics"] == [
        {"name": None, "transport": "daemon", "setting": None, "port": "lan:3", "mac": "02:00:00:00:00:03"}
    ]
    # Every key of a lab's guest, too.
    assert record.keys() >= {"kernel", "memory", "started_at", "consoles", "answers", "uptime", "load"}


def test_guests_of_one_name_outside_labs_are_told_apart(
    run: Run, runtime: Path, guests: SimulatedGuests
) -> None:
    guests.add("left")
    guests.add("right")
    (runtime / "srv").mkdir()
    with SimulatedGuests(runtime / "srv") as others, LabThread(runtime, "lan", guests=("left",)):
        others.add("left")
        shown = run("guest", "ls", "--uml-dir", str(runtime / "srv"))
    names = [line.split()[0] for line in shown.out.splitlines()[1:]]
    assert names == ["left", str(guests.directory / "left"), "right", f"{runtime}/srv/left"]


def test_every_state_is_shown(run: Run, runtime: Path, guests: SimulatedGuests) -> None:
    guests.add("a-silent", fault=silent)
    guests.add("b-dead").die()
    guests.add("d-frozen").kernel.stopped = True
    (runtime / "uml/c-boots").mkdir()
    (runtime / "uml/c-boots/pid").write_text("0\n")
    with LabThread(runtime, "lan", guests=("frozen", "left")) as lan:
        lan.call(lambda lab: _change(lab.held("left"), state="silent", age=60.0))
        lan.call(lambda lab: _change(lab.held("frozen"), state="stopped"))
        shown = run("guest", "ls")
        records = run("guest", "ls", "--json").records
    lines = {line.split()[0]: line for line in shown.out.splitlines()}
    # What it has said long ago is not how it is.
    assert lines["left"].split()[1:] == ["lan", "ready,", "silent", "4711", "6.1.176", "?", "?", "?", "?"]
    assert lines["a-silent"].split()[1:] == ["-", "silent", str(os.getpid()), "?", "?", "?", "?", "?"]
    assert lines["b-dead"].split()[1:] == ["-", "dead", "-", "-", "-", "-", "-", "-"]
    assert lines["c-boots"].split()[1:] == ["-", "no", "socket", "?", "?", "?", "?", "?", "?"]
    # One that is stopped answers, and says how it is.
    assert lines["frozen"].split()[1:7] == ["lan", "ready,", "stopped", "4711", "6.1.176", "26"]
    assert lines["d-frozen"].split()[1:5] == ["-", "stopped", str(os.getpid()), "6.1.176"]
    assert lines["d-frozen"].count("?") == 1
    states = [(each["name"], each["state"], each["answers"]) for each in records]
    assert states == [
        *(("frozen", "ready", True), ("left", "ready", False), ("a-silent", "silent", False)),
        *(("b-dead", "dead", None), ("c-boots", "no socket", None), ("d-frozen", "stopped", True)),
    ]
    figures = ("release", "uptime", "load", "memory_used", "memory_total")
    assert [records[1][each] for each in figures] == ["6.1.176", None, None, None, None]
    assert None not in [records[0][each] for each in figures]


def test_what_a_guest_has_said_long_ago_is_not_how_it_is(
    run: Run, runtime: Path, guests: SimulatedGuests
) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as lan:
        # Nobody has looked for a minute, and it is slow to answer, or hangs.
        lan.call(lambda lab: _change(lab.held("left"), age=60.0))
        (line,) = run("guest", "ls").out.splitlines()[1:]
        (record,) = run("guest", "ls", "--json").records
    assert line.split()[1:8] == ["lan", "ready", "4711", "6.1.176", "?", "?", "?"]
    assert (record["release"], record["uptime"], record["load"]) == ("6.1.176", None, None)


def test_daemon_that_hears_nothing_knows_better_than_an_old_word() -> None:
    view = GuestView("left", "ready", 4711, None, "/usr/bin/linux", 0, 0.0, (), "/m", answers=False)
    said = GuestVitals("left", "answers", age=60.0)
    assert state_text(view, said) == state_text(view, None) == "ready, silent"
    # It has answered just now.
    assert state_text(view, dataclasses.replace(said, age=0.1)) == "ready"


def _change(guest: FakeGuest, **facts: Any) -> None:
    guest.vitals = dataclasses.replace(guest.vitals, **facts)


def test_labs_whose_daemon_does_not_answer_or_has_died_are_named(
    run: Run, runtime: Path, guests: SimulatedGuests
) -> None:
    for lab in ("hung", "kept"):
        (runtime / "umlab" / lab).mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener, open(runtime / "umlab/kept" / KEEPER_LOCK, "w") as lock:
        listener.bind(str(runtime / "umlab/hung/api.sock"))
        listener.listen()
        fcntl.flock(lock, fcntl.LOCK_EX)
        guests.add("other")
        shown = run("guest", "ls").out.splitlines()
        records = run("guest", "ls", "--json").records
    assert shown[1].split()[:3] == ["other", "-", "answers"]
    assert shown[2:] == [
        "the daemon of hung does not answer",
        "the daemon of kept has died; to manage its guests: umlab switch run kept --background",
    ]
    assert records[1:] == [{"lab": "hung", "state": "hung"}, {"lab": "kept", "state": "kept"}]


def test_what_guests_say_does_nothing_to_the_terminal(
    run: Run, runtime: Path, guests: SimulatedGuests
) -> None:
    guests.add("\x1b[2J\u202e\n\udcff", fault=escapes)
    guests.add("release", release="6.1\x1b[2J\x9b\u202e")
    shown = run("guest", "ls").out
    assert all(char.isprintable() or char == "\n" for char in shown)
    _, first, second = shown.splitlines()
    assert first.startswith(r"\x1b[2J\u202e\n\xff  -    answers")
    assert second.split()[4] == r"6.1\x1b[2J\x9b\u202e"
    records = run("guest", "ls", "--json").records
    assert records[0]["name"] == "\x1b[2J\u202e\n\udcff"


def test_further_directories_are_looked_at(run: Run, runtime: Path, guests: SimulatedGuests) -> None:
    guests.add("usual")
    for name in ("one", "two"):
        (runtime / name).mkdir()
    with SimulatedGuests(runtime / "one") as one, SimulatedGuests(runtime / "two") as two:
        one.add("a")
        two.add("b")
        words = ("--uml-dir", str(runtime / "one"), "--uml-dir", str(runtime / "two"), "--uml-dir", "/none")
        assert [each["name"] for each in run("guest", "ls", "--json", *words).records] == ["usual", "a", "b"]


def test_dead_guests_directories_are_removed_on_request(
    run: Run, runtime: Path, guests: SimulatedGuests
) -> None:
    lab = runtime / "umlab/ring/g/left"
    lab.mkdir(parents=True)
    with SimulatedGuests(lab) as of_lab:
        dead = [guests.add("a-dead"), guests.add("b-files"), of_lab.add("left")]
        guests.add("c-lives")
        for guest in dead:
            guest.die()
        (dead[1].run_directory / "disk.cow").touch()
        assert [line.split()[2] for line in run("guest", "ls").out.splitlines()[1:]] == [
            *("dead", "dead", "dead", "answers"),
        ]
        shown = run("guest", "ls", "--prune").out.splitlines()
        root = runtime / "uml"
        assert shown[5:] == [
            f"{root}/a-dead removed",
            f"{root}/b-files stays: it has other files, such as disk.cow",
        ]
        assert sorted(each.name for each in root.iterdir()) == ["b-files", "c-lives"]
        # What is in a lab's directory is its daemon's.
        assert dead[2].path.is_socket()
        (dead[1].run_directory / "disk.cow").unlink()
        records = run("guest", "ls", "--prune", "--json").records
        assert [(each["name"], each["state"], each.get("kept", "")) for each in records] == [
            ("left", "dead", ""),
            ("b-files", "dead", None),
            ("c-lives", "answers", ""),
        ]
        assert [each["name"] for each in run("guest", "ls", "--json").records] == ["left", "c-lives"]


def test_removing_again_and_again_is_refused(run: Run) -> None:
    assert run("guest", "ls", "--prune", "--watch").status == 2


def test_narrow_terminal_is_not_shown_everything() -> None:
    row = ("left", "lan", "ready", "4711", "6.1.176", "26 h", "0.50", "24/96 MiB", "eth0 lan:1, vec0 bess ?")
    assert fitted(Table(HEADINGS, [row], SPARE), 100).headings == HEADINGS
    assert fitted(Table(HEADINGS, [row], SPARE), 36).headings == ("GUEST", "LAB", "STATE", " PID", " UP")
    assert fitted(Table(HEADINGS, [row], SPARE), 10).headings == ("GUEST", "LAB", "STATE")
