"""``umlab guest exec`` with guests that there are not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from support.cli_run import Run
from support.deadline import scaled, wait_until
from support.fake_execs import FakeExecs
from support.lab_thread import LabThread
from support.terminal_session import TerminalSession
from umlab.guest.inside import hearing

UMLAB = str(Path(sys.executable).with_name("umlab"))


@pytest.fixture
def lab(runtime: Path) -> Iterator[LabThread]:
    with LabThread(runtime, "lan", guests=("left", "right", "web1")) as daemon:
        yield daemon


def sessions(lab: LabThread) -> list[Any]:
    return lab.call(lambda fake: list(cast(FakeExecs, fake.execs).sessions))


def umlab(runtime: Path, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own, whose standard streams are pipes."""
    return subprocess.run(
        [UMLAB, "guest", "exec", *words],
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        input=data,
        capture_output=True,
        timeout=scaled(60),
        check=False,
    )


def test_streams_and_status_are_the_commands(lab: LabThread, runtime: Path) -> None:
    done = umlab(runtime, "left", "--", "echo", "a", "--", "-n")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"a -- -n\n", b"an error\n")
    data = os.urandom(1 << 20)
    done = umlab(runtime, "lan/left", "--", "cat", data=data)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data
    done = umlab(runtime, "left", "--", "nowhere")
    assert (done.returncode, done.stderr) == (127, b"sh: nowhere: not found\n")
    words = ("-n", "-e", "A=b=c", "--env", "B=", "-w", "/srv", "left", "--", "order")
    assert umlab(runtime, *words, data=b"x").stdout == b'[{"A": "b=c", "B": ""}, "/srv", "none", [24, 80]]'
    done = umlab(runtime, "-t", "left", "--", "tty", data=b"ls\n")
    assert (done.returncode, done.stdout) == (7, b"window 24 80\r\ntyped b'ls\\n'\r\n")


def test_lines_of_many_guests_have_their_names(lab: LabThread, runtime: Path) -> None:
    done = umlab(runtime, "left", "lan/w*", "--", "hostile")
    lines = [b"one\x1b]0;title\x07two\xff", b"last"]
    assert sorted(done.stdout.splitlines(keepends=True)) == sorted(
        name + b": " + line + b"\n" for name in (b"left", b"web1") for line in lines
    )
    assert sorted(done.stderr.splitlines()) == [b"left: \x1b[2Jbad", b"web1: \x1b[2Jbad"]
    assert done.returncode == 1
    lab.call(lambda fake: setattr(fake.held("right"), "state", "silent"))
    done = umlab(runtime, "--all", "lan", "--", "echo", "x")
    assert done.returncode == 125
    assert b"right: umlab: guest right has no agent that answers\n" in done.stderr
    assert sorted(done.stdout.splitlines()) == [b"left: x", b"web1: x"]


def test_records_of_guests(lab: LabThread, run: Run) -> None:
    lab.call(lambda fake: setattr(fake.held("right"), "state", "ended"))
    done = run("guest", "exec", "--all", "--json", "--", "hostile")
    assert done.status == 1
    assert sorted(done.records, key=lambda record: str(record["guest"])) == [
        {
            "lab": "lan",
            "guest": name,
            "status": 1,
            "stdout": "one\x1b]0;title\x07two\ufffd\nlast",
            "stderr": bad,
        }
        for name, bad in (("left", "\x1b[2Jbad\n"), ("web1", "\x1b[2Jbad\n"))
    ]
    (record,) = run("guest", "exec", "--json", "left", "--", "die").records
    assert (record["status"], "status 134" in record["error"]) == (125, True)
    (record,) = run("guest", "exec", "--json", "--timeout", "0.1", "left", "--", "sleep").records
    assert (record["status"], "did not end" in record["error"]) == (124, True)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("left",), "write the command behind --"),
        (("left", "--"), "write the command behind --"),
        (("--", "ls"), "name the guests, or write --all"),
        (("--all", "lan", "left", "--", "ls"), "--all takes one lab at most"),
        (("-t", "-T", "left", "--", "ls"), "--tty goes with none of"),
        (("-t", "left", "right", "--", "ls"), "--tty is for one guest"),
        (("-e", "A", "left", "--", "ls"), "write NAME=VALUE"),
        (("nobody", "--", "ls"), "no guest nobody"),
        (("n*", "--", "ls"), "no guest n*"),
        (("left", "-w", "x", "--", "ls"), "is not an absolute path"),
        (("left", "--", "die"), "ended with status 134"),
        (("--all", "ring", "--", "ls"), "ring does not run; start it with"),
        (("--all", "left", "--", "ls"), "left is a guest, --all takes a lab: write left without --all"),
    ],
)
def test_failures_of_ours_have_their_own_status(
    words: tuple[str, ...], text: str, lab: LabThread, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("guest", "exec", "-n", *words) if "-t" not in words else run("guest", "exec", *words)
    assert done.status == 125
    assert text in done.complaint


def test_guest_outside_labs_is_told_apart(run: Run, guests: Any) -> None:
    guests.add("alone")
    done = run("guest", "exec", "alone", "--", "ls")
    assert done.status == 125
    assert "no lab's daemon speaks for the guest alone" in done.complaint


def started(runtime: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [UMLAB, "guest", "exec", *words],
        env=os.environ | {"XDG_RUNTIME_DIR": str(runtime)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )


def test_signals_are_the_commands(lab: LabThread, runtime: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with started(runtime, "left", "--", "sleep") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"asleep\n"
            process.send_signal(number)
            assert process.wait(scaled(20)) == 128 + number
    with started(runtime, "--all", "--", "sleep") as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith(b": asleep\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(scaled(20)) == 130
    wait_until(lambda: all(each.released for each in sessions(lab)), 10, "everything is killed")


def test_second_signal_ends_us_and_one_that_we_ignore_is_nobodys(lab: LabThread, runtime: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = started(runtime, "left", "--", "stubborn")
        others = started(runtime, "left", "right", "--", "sleep")
    finally:
        signal.signal(signal.SIGHUP, before)
    with process, others:
        assert process.stdout is not None
        assert others.stdout is not None
        assert process.stdout.readline() == b"asleep\n"
        (session,) = (each for each in sessions(lab) if each.order.argv == ("stubborn",))
        process.send_signal(signal.SIGHUP)
        for name in ("USR1", "USR2", "TERM"):
            process.send_signal(signal.Signals[f"SIG{name}"])
            wait_until(partial(session.signals.__contains__, name), 10, "the signal is passed on")
        assert session.signals == ["USR1", "USR2", "TERM"]
        process.send_signal(signal.SIGINT)
        assert process.wait(scaled(20)) == 130
        assert others.stdout.readline().endswith(b": asleep\n")
        others.send_signal(signal.SIGHUP)
        others.send_signal(signal.SIGTERM)
        assert others.wait(scaled(20)) == 143
    wait_until(lambda: all(each.released for each in sessions(lab)), 10, "everything is killed")


def test_signal_ends_what_has_not_begun_and_what_hears_none(
    lab: LabThread, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.call(lambda fake: setattr(fake.held("left"), "state", "booting"))
    with started(runtime, "left", "--", "stubborn") as process:
        wait_until(
            lambda: lab.call(lambda fake: cast(FakeExecs, fake.execs).waiting), 20, "the order arrives"
        )
        process.terminate()
        assert process.wait(scaled(20)) == 143
    lab.call(lambda fake: setattr(fake.held("left"), "state", "ready"))
    monkeypatch.setattr(hearing, "HEARING_TIME", 0.2)
    with started(runtime, "left", "--", "deaf") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"asleep\n"
        process.terminate()
        assert process.wait(scaled(20)) == 125
    wait_until(lambda: all(each.released for each in sessions(lab)), 10, "everything is killed")


def test_command_ends_with_its_reader(lab: LabThread, runtime: Path) -> None:
    for words in (("left",), ("left", "right")):
        with started(runtime, *words, "--", "flood") as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.stdout.close()
            assert process.wait(scaled(20)) in (141, 1)
    wait_until(lambda: all(each.released for each in sessions(lab)), 10, "everything is killed")


def test_slow_reader_is_no_loss_and_signals_pass_him(lab: LabThread, runtime: Path) -> None:
    with started(runtime, "left", "--", "flood") as process:
        assert process.stdout is not None
        wait_until(lambda: sessions(lab) and sessions(lab)[0]._streams[1].full(), 20, "the output waits")
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: sessions(lab)[0]._ended.done(), 20, "the signal arrives")
        rest = process.stdout.read()
        assert set(rest) == set(b"y\n")
        assert process.wait(scaled(20)) == 143


def test_terminal_is_the_commands(lab: LabThread, runtime: Path) -> None:
    environment = os.environ | {"XDG_RUNTIME_DIR": str(runtime), "TERM": "xterm"}
    argv = [UMLAB, "guest", "exec", "left", "--", "tty"]
    with TerminalSession(argv, environment, (30, 90)) as session:
        session.wait_for("window 30 90")
        session.type("\x03")
        session.wait_for("typed b'\\x03'")
        session.resize(31, 91)
        session.wait_for("window 31 91")
        session.type("\x04")
        assert session.wait() == 7
    assert sessions(lab)[0].order.environment == {"TERM": "xterm"}
    with TerminalSession(argv, environment) as session:
        session.wait_for("window 24 80")
        session.type("\x1d\x1d\x1d")
        assert session.wait() == 130
