"""``umlab console`` and ``umlab guest ls`` with guests that are hostile, hung, dead, or no guests at all."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_run import Run
from support.deadline import scaled
from umlab.mconsole.sync import Mconsole
from umlab.testing import SimulatedGuests
from umlab.testing.fault import dies, endless, escapes, garbage, late, silent, wrong_length

EVIL = "ev\x1b[31mil"
DEAD = "does not run: nobody listens on "
NO_SOCKET = r"cannot be reached: .* is not a socket$"
NO_CONSOLE = r"cannot be reached: .* is a socket, but not that of a console$"
SILENT = "did not answer in time, it may be hung or stopped"
NONSENSE = "the answer makes no sense: "

#: Guest to what ``version`` says of it, ``None`` where it answers.
ERRORS = {
    "good": None,
    "stopped": None,
    "escapes": None,
    EVIL: None,
    "silent": SILENT,
    "late": SILENT,
    "paused": SILENT,
    "endless": f"{SILENT}|{NONSENSE}",
    "dead": DEAD,
    "dies": DEAD,
    "garbage": NONSENSE,
    "lies": NONSENSE,
    "file": NO_SOCKET,
    "folder": NO_SOCKET,
    "fifo": NO_SOCKET,
    "stream": NO_CONSOLE,
    "packets": NO_CONSOLE,
    "loop": "Too many levels of symbolic links$",
}

#: Guest to its state in the list.
STATES = {
    **dict.fromkeys(ERRORS.keys() - {"endless"}, "no console"),
    **dict.fromkeys(("good", "escapes", EVIL), "answers"),
    **dict.fromkeys(("garbage", "lies"), "garbled"),
    "stopped": "stopped",
    **dict.fromkeys(("silent", "late", "paused"), "silent"),
    "dead": "dead",
    "dies": "dead",
}


@pytest.fixture
def zoo(runtime: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One guest of each kind, and none of the machine's."""
    monkeypatch.setenv("HOME", str(runtime / "home"))
    monkeypatch.setattr("umlab.client.find.process_roots", list)
    monkeypatch.setattr("umlab.client.find.usual_roots", list)
    directory = runtime / "zoo"
    directory.mkdir()
    with SimulatedGuests(directory) as guests, contextlib.ExitStack() as stack:
        guests.add("good")
        Mconsole(str(guests.add("stopped").path)).stop()
        guests.add("escapes", fault=escapes, release="6\x1b[2J", nodename="\x1b]0;owned\x07")
        guests.add(EVIL, release="6\x9b2J")
        guests.add("silent", fault=silent)
        guests.add("late", fault=late(60))
        guests.add("paused").pause()
        guests.add("endless", fault=endless)
        guests.add("dead").die()
        guests.add("dies", fault=dies)
        guests.add("garbage", fault=garbage())
        guests.add("lies", fault=wrong_length(-1))
        for name in ("file", "folder", "fifo", "stream", "packets", "loop"):
            (directory / name).mkdir()
        (directory / "file/mconsole").touch()
        (directory / "folder/mconsole").mkdir()
        os.mkfifo(directory / "fifo/mconsole")
        (directory / "loop/mconsole").symlink_to("mconsole")
        for name, kind in (("stream", socket.SOCK_STREAM), ("packets", socket.SOCK_SEQPACKET)):
            other = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            other.bind(str(directory / name / "mconsole"))
            other.listen()
        yield directory


def _assert_harmless(text: str) -> None:
    """Nothing that a terminal obeys, but for the ends of lines."""
    assert re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text) == []


def test_each_guest_has_its_own_message_within_the_limit(run: Run, zoo: Path) -> None:
    began = time.monotonic()
    done = run(
        "console", *(str(zoo / name) for name in ERRORS), "--timeout", "0.4", "--json", "--", "version"
    )
    assert time.monotonic() - began < scaled(8)
    assert (done.status, done.err) == (1, "")
    records = {record["guest"]: record for record in done.records}
    assert list(records) == list(ERRORS)
    for name, expected in ERRORS.items():
        record = records[name]
        assert record["ok"] == (expected is None), record
        if expected is None:
            assert record["output"].startswith("Linux") or "\x1b" in record["output"]
        else:
            assert re.search(expected, record["error"]), record


@pytest.mark.parametrize("name", ["good", "silent", "dead", "lies", "escapes", EVIL, "stream"])
def test_one_guest_alone_has_the_same_message(run: Run, zoo: Path, name: str) -> None:
    expected = ERRORS[name]
    timeout = "0.2" if expected == SILENT else "5"
    done = run("console", str(zoo / name), "--timeout", timeout, "--", "version")
    _assert_harmless(done.out + done.err)
    if expected is None:
        assert (done.status, done.err) == (0, "")
    else:
        assert done.status in (1, 3)
        assert done.out == ""
        assert done.err.count("\n") == 1
        assert re.search(expected.removesuffix(", it may be hung or stopped").partition(" in")[0], done.err)


def test_nothing_that_a_guest_says_reaches_the_terminal_raw(run: Run, zoo: Path) -> None:
    names = [str(zoo / name) for name in ("escapes", EVIL, "good")]
    for command in ("version", "proc uptime", "config eth0", "bogus\x1b[2J", "config x\x9b2J=1"):
        done = run("console", *names, "--", command)
        _assert_harmless(done.out + done.err)
        assert r"\x1b]0;owned\x07" in done.out
        alone = run("console", names[0], "--", command)
        _assert_harmless(alone.out + alone.err)
        assert r"\x1b]0;owned\x07" in alone.out + alone.err


def test_endless_answer_fills_no_screen(run: Run, zoo: Path) -> None:
    done = run("console", str(zoo / "endless"), str(zoo / "good"), "--timeout", "0.3", "--", "version")
    assert len(done.out) < 2000


def test_name_of_no_guest_is_harmless(run: Run, zoo: Path) -> None:
    done = run("console", "no\x1b[2Jsuch", "--uml-dir", str(zoo), "--", "version")
    assert done.status == 3
    _assert_harmless(done.out + done.err)


def test_list_tells_what_each_is(run: Run, zoo: Path) -> None:
    began = time.monotonic()
    done = run("guest", "ls", "--uml-dir", str(zoo), "--json")
    assert time.monotonic() - began < scaled(8)
    assert done.status == 0
    _assert_harmless(done.out + done.err)
    states = {record["name"]: record["state"] for record in done.records}
    # It depends on the machine whether the limit of time or that of the answer is reached first.
    assert states.pop("endless") in ("answers", "garbled", "silent")
    assert states == STATES


def test_list_is_harmless_and_prunes_the_dead_alone(run: Run, zoo: Path) -> None:
    before = set(os.listdir(zoo))
    done = run("guest", "ls", "--uml-dir", str(zoo), "--prune")
    _assert_harmless(done.out + done.err)
    assert r"ev\x1b[31mil" in done.out
    assert before - set(os.listdir(zoo)) <= {"dead", "dies"}
    assert not (zoo / "dead").exists()


PROGRAM = "from umlab.cli.main import main; main()"


def _with_descriptors(count: int, words: list[str], runtime: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", f'ulimit -n {count}; exec "$@"', "sh", sys.executable, "-c", PROGRAM, *words],
        env={**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime)},
        capture_output=True,
        text=True,
        timeout=scaled(60),
    )


def test_hundreds_of_guests_with_few_descriptors(runtime: Path) -> None:
    """Every guest gives its own answer; where there is none left, it says how many there may be."""
    directory = runtime / "many"
    directory.mkdir()
    with SimulatedGuests(directory) as guests:
        names = [f"g{at}" for at in range(500)]
        paths = [str(guests.add(name, nodename=f"host-{name}").run_directory) for name in names]
        enough = _with_descriptors(32, ["console", *paths, "--json", "--", "version"], runtime)
        records = [json.loads(line) for line in enough.stdout.splitlines()]
        assert (enough.returncode, enough.stderr) == (0, "")
        assert [record["guest"] for record in records] == names
        assert [each["guest"] for each in records if f" host-{each['guest']} " not in each["output"]] == []

        too_few = _with_descriptors(8, ["console", *paths, "--json", "--", "version"], runtime)
        records = [json.loads(line) for line in too_few.stdout.splitlines()]
        assert [record["guest"] for record in records] == names
        for record in records:
            if record["ok"]:
                assert f" host-{record['guest']} " in record["output"]
            else:
                assert "Too many open files (the limit is 8; raise it: ulimit -n)" in record["error"]
        assert too_few.returncode != 0
