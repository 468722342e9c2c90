"""``umlab console`` without a terminal: one command, or lines of standard input."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.cli_run import Run
from support.lab_thread import LabThread
from umlab.testing import SimulatedGuests
from umlab.testing.fault import escapes, silent

#: Puts text into standard input.
Pipe = Callable[[str], None]

VERSION = "Linux (none) 6.1.176 #1 Sat Jul  4 15:38:16 UTC 2026 x86_64"


@pytest.fixture
def guests(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimulatedGuests]:
    """Yield guests without a lab, which are the only ones of this machine."""
    directory = short_dir / "uml"
    directory.mkdir()
    for module in ("console", "find"):
        monkeypatch.setattr(
            f"umlab.client.{module}.guest_roots", lambda uml_dirs=(): [str(directory), *uml_dirs]
        )
    with SimulatedGuests(directory) as made:
        yield made


@pytest.fixture
def piped() -> Iterator[Pipe]:
    """Return what puts text into standard input."""
    before = os.dup(0)

    def put(text: str) -> None:
        reader, writer = os.pipe()
        os.write(writer, text.encode())
        os.close(writer)
        os.dup2(reader, 0)
        os.close(reader)

    yield put
    os.dup2(before, 0)
    os.close(before)


def test_one_guest_is_asked_one_command(run: Run, guests: SimulatedGuests) -> None:
    web = guests.add("web1")
    done = run("console", "web1", "--", "version")
    assert (done.status, done.out, done.err) == (0, f"{VERSION}\n", "")
    done = run("console", str(web.run_directory), "--", "proc", "loadavg")
    assert (done.status, done.out) == (0, "0.00 0.00 0.00 1/38 736\n")
    done = run("console", "web1", "--", "stop")
    assert (done.out, run("console", "web1", "--", "go").out) == ("stopped\n", "")
    assert web.requests == [b"version", b"proc loadavg", b"stop", b"go"]


def test_status_tells_an_error_from_a_guest_that_does_not_run(
    run: Run, guests: SimulatedGuests, short_dir: Path
) -> None:
    guests.add("web1")
    dead = guests.add("dead")
    dead.die()
    done = run("console", "web1", "--", "bogus")
    assert (done.status, done.out, done.err) == (1, "", "umlab: guest web1: bogus: Unknown command\n")
    done = run("console", "dead", "--", "version")
    assert done.status == 3
    assert "guest dead does not run: nobody listens" in done.err
    done = run("console", "lan/left", "--", "version")
    assert (done.status, done.err) == (
        3,
        "umlab: lan does not run; start it with: umlab switch run lan --background\n",
    )
    done = run("console", "nobody", "--", "version")
    assert (done.status, done.err) == (3, "umlab: no guest nobody\n")
    done = run("console", "web1", "dead", "--", "version")
    assert done.status == 3
    file = short_dir / "file"
    file.touch()
    for words in (("console", str(file), "--", "version"), ("guest", "sysrq", str(file), "m")):
        done = run(*words)
        assert (done.status, f"{file} is not a socket" in done.err) == (1, True)
    done = run("console", "dead", str(file), "--", "version")
    assert done.status == 1
    done = run("console", "web1", "dead", "--", "bogus")
    assert done.status == 1


def test_many_are_asked_at_once_and_the_same_answers_stand_together(
    run: Run, guests: SimulatedGuests
) -> None:
    for name in ("web1", "web2"):
        guests.add(name)
    guests.add("db", release="6.12.3").set_fault(escapes)
    done = run("console", "web2", "web1", "nobody", "--", "version")
    assert done.status == 3
    assert done.out == f"web2, web1  OK   {VERSION}\nnobody      ERR  no guest nobody\n"
    done = run("console", "--all", "--json", "--", "version")
    assert done.status == 0
    assert [(each["guest"], each["lab"], each["ok"]) for each in done.records] == [
        ("db", None, True),
        ("web1", None, True),
        ("web2", None, True),
    ]
    assert "\x1b" in done.records[0]["output"]
    assert "\x1b" not in run("console", "--all", "--", "version").out
    assert done.records[1] | {"seconds": 0} == {
        "guest": "web1",
        "lab": None,
        "ok": True,
        "output": VERSION,
        "error": None,
        "seconds": 0,
    }


def test_command_chooses_guests_as_in_the_shell(run: Run, guests: SimulatedGuests) -> None:
    for name in ("web1", "web2", "db"):
        guests.add(name)
    done = run("console", "--", "@web*", "version")
    assert (done.status, done.out) == (0, f"web1, web2  OK   {VERSION}\n")
    assert run("console", "web2", "db", "--", "@all version").out == f"web2, db  OK   {VERSION}\n"
    done = run("console", "db", "--", "@web*", "version")
    assert (done.status, done.err) == (1, "umlab: no guest is called web*; see them with: guests\n")


def test_silent_guest_costs_its_time_limit_and_no_other_guests_answer(
    run: Run, guests: SimulatedGuests
) -> None:
    guests.add("web1")
    guests.add("hung").set_fault(silent)
    done = run("console", "web1", "hung", "--timeout", "0.2", "--", "version")
    assert done.status == 1
    assert done.out == (
        f"web1  OK   {VERSION}\nhung  ERR  did not answer in time, it may be hung or stopped\n"
    )


def test_guest_of_a_lab_is_asked_by_its_daemon(run: Run, runtime: Path, guests: SimulatedGuests) -> None:
    guests.add("web1")
    with LabThread(runtime, "lan", guests=("left",)) as lab:
        done = run("console", "left", "--timeout", "7", "--", "proc", "meminfo")
        assert (done.status, done.out) == (0, "mconsole proc meminfo\n")
        assert lab.call(lambda held: held.asked) == [("mconsole", ("proc meminfo", 7))]
        done = run("console", "--all", "--json", "--", "version")
        assert [(each["guest"], each["lab"]) for each in done.records] == [("left", "lan"), ("web1", None)]
        assert run("console", "lan/nobody", "--", "version").status == 3


def test_lines_of_a_pipe_are_run_in_order(
    run: Run, guests: SimulatedGuests, piped: Pipe, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web1, web2 = (guests.add(name) for name in ("web1", "web2"))
    (short_dir / "notes").write_text("one\ntwo\n")
    (short_dir / "disk").touch()
    monkeypatch.chdir(short_dir)
    first, second = (
        "version\n\n@web* proc uptime x\nswitch web2\n",
        "log -f notes\nlog a  b\nconfig ubdb=disk\n",
    )
    piped(f"{first}{second}mconsole-version\nquit\nhalt")
    done = run("console", "web1", "web2")
    assert done.status == 1, "there is no such file"
    assert done.out == (f"{VERSION}\nweb1, web2  ERR  Failed to open file\numl_mconsole client version 2\n")
    assert web1.requests == [b"version", b"proc uptime x"]
    assert web2.requests == [
        b"proc uptime x",
        b"log one\ntwo\n",
        b"log a  b",
        b"log \n",
        b"config ubdb=%s" % os.fsencode(short_dir.resolve() / "disk"),
    ]


def test_pipe_speaks_to_the_only_guest_that_runs(run: Run, guests: SimulatedGuests, piped: Pipe) -> None:
    web = guests.add("web1")
    piped("version\nguests")
    done = run("console", "--json")
    assert done.status == 0
    assert done.records[0]["output"] == VERSION
    assert done.records[1] == {"guest": "web1", "lab": None, "path": str(web.path)}


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("version", "no guest is chosen; choose one with: switch NAME"),
        ("@nobody version", "no guest is called nobody"),
        ("@web1", "write a command behind @web1"),
        ("switch", "name the guest"),
        ("switch nobody", "no guest nobody"),
        ("help dance", "there is no command dance"),
        ("@web1 log -f /nowhere", "cannot read /nowhere: No such file"),
        ("@web1 config ubdb=/nowhere/disk", "cannot use the directory of /nowhere/disk"),
    ],
)
def test_mistakes_are_told(lines: str, words: str, run: Run, guests: SimulatedGuests, piped: Pipe) -> None:
    asked = [guests.add(name) for name in ("web1", "web2")]
    piped(lines)
    done = run("console")
    assert (done.status, done.out) == (1, "")
    assert f"umlab: {words}" in done.err
    assert [each.requests for each in asked] == [[], []]


@pytest.mark.parametrize(
    "words",
    [
        ("web1", "--"),
        ("--", "version"),
        ("--", "@all"),
        ("web1", "--all", "--", "version"),
        ("web1", "--timeout", "0", "--", "version"),
    ],
)
def test_wrong_command_line_is_refused(words: tuple[str, ...], run: Run) -> None:
    assert run("console", *words).status == 2


def test_nobody_to_ask(run: Run, guests: SimulatedGuests) -> None:
    done = run("console", "--all", "--", "version")
    assert (done.status, done.err) == (3, "umlab: no guest runs\n")
