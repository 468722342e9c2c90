"""``umlab guest stack`` and ``umlab guest sysrq``: of a lab's guests and of others."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli_run import Run
from support.fake_lab import FakeKernels
from support.lab_thread import LabThread
from umlab.errors import MconsoleUnreachable
from umlab.mconsole.sysrq import KEYS
from umlab.testing.fault import DEATH, answer
from umlab.testing.guest import SimulatedGuest, SimulatedGuests
from umlab.wire.mconsole import ReplyFragment, serialize_reply


@pytest.fixture
def other(short_dir: Path) -> Iterator[SimulatedGuest]:
    """Yield a guest that no lab has."""
    directory = short_dir / "uml"
    directory.mkdir()
    with SimulatedGuests(directory) as guests:
        guest = guests.add("other", release="6.12.9")
        guest.kernel.facts.console_level = 4
        yield guest


def say_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))


def test_stack_is_printed(run: Run, runtime: Path) -> None:
    with LabThread(runtime, "lan", guests=("left",)):
        assert run("guest", "stack", "left", "7").out == "stack of 7\n"
        (record,) = run("guest", "stack", "lan/left", "7", "--json").records
    assert record == {"lab": "lan", "guest": "left", "pid": 7, "output": "stack of 7"}
    assert run("guest", "stack", "left", "0").status == 2
    assert run("guest", "stack", "left", "7").status == 3


def test_letters_are_listed(run: Run) -> None:
    shown = run("guest", "sysrq", "left")
    assert shown.status == 0
    rows = [line.split(maxsplit=2) for line in shown.out.splitlines()[1:]]
    assert [row[0] for row in rows] == list(KEYS)
    assert ["m", "-", "show memory"] in rows
    records = run("guest", "sysrq", "left", "--json").records
    assert records[list(KEYS).index("b")] == KEYS["b"]._asdict()


def test_sysrq_asks_before_it_kills(run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        assert run("guest", "sysrq", "left", "m").out == "sysrq m\n"
        for letter in "tbe":
            say_no(monkeypatch)
            assert run("guest", "sysrq", "left", letter).status == 1
        assert daemon.call(lambda lab: lab.asked) == [("sysrq", "m")]
        assert run("guest", "sysrq", "left", "b", "--yes").out == "sysrq b\n"
        assert daemon.call(lambda lab: lab.asked[-1]) == ("sysrq", "b")
    for wrong in ("mm", "-", "é", "M", "m\n"):
        assert run("guest", "sysrq", "left", "--", wrong).status == 2


@pytest.mark.parametrize(
    ("release", "asks"),
    [("6.1.176", True), ("6.1", True), (None, True), ("6.12.9", False), ("6.10.1", False)],
)
def test_t_kills_one_kernel_only(
    release: str | None, asks: bool, run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LabThread(runtime, "lan", guests=("left",)) as daemon:
        guest = daemon.call(lambda lab: lab.guest_by_name["left"])
        guest.vitals = dataclasses.replace(guest.vitals, release=release)
        say_no(monkeypatch)
        done = run("guest", "sysrq", "left", "t")
    assert (done.status, "may end left" in done.err) == ((1, True) if asks else (0, False))


def test_guest_outside_labs_is_asked_aloud(run: Run, other: SimulatedGuest) -> None:
    path = str(other.run_directory)
    (record,) = run("guest", "stack", path, "1", "--json").records
    assert {**record, "output": ""} == {"lab": None, "guest": "other", "pid": 1, "output": ""}
    assert "Call Trace:" in record["output"]
    shown = run("guest", "sysrq", "other", "m", "--uml-dir", str(other.run_directory.parent))
    assert "Mem-Info:" in shown.out
    assert other.kernel.facts.console_level == 4
    assert run("guest", "sysrq", path, "6").status == 0
    assert other.kernel.facts.console_level == 6


def test_guest_outside_labs_is_asked_for_its_kernel(
    run: Run, other: SimulatedGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.set_fault(lambda request, datagrams: answer(b"fine") if request == b"sysrq t" else datagrams)
    assert run("guest", "sysrq", str(other.path), "t").out == "fine\n"
    other.kernel.facts.release = "6.1.176"
    say_no(monkeypatch)
    assert run("guest", "sysrq", str(other.path), "t").status == 1
    other.set_fault(lambda _request, _datagrams: [DEATH])
    say_no(monkeypatch)
    assert run("guest", "sysrq", str(other.path), "t").status == 1
    assert run("guest", "sysrq", str(other.path), "t", "--yes").status == 3
    assert run("guest", "stack", "nobody", "1").status == 3


@pytest.mark.parametrize(("letter", "words"), [("c", "has ended"), ("b", "has ended, to reboot")])
def test_guest_that_ends_of_its_letter_is_no_error(
    letter: str, words: str, run: Run, other: SimulatedGuest
) -> None:
    panic = serialize_reply(ReplyFragment(0, True, b"Kernel panic\n"))
    other.set_fault(
        lambda request, datagrams: [panic, DEATH] if request == f"sysrq {letter}".encode() else datagrams
    )
    done = run("guest", "sysrq", str(other.path), letter, "--yes")
    assert (done.status, done.out, done.err) == (0, "Kernel panic\n", f"umlab: guest other {words}\n")
    other.start()
    (record,) = run("guest", "sysrq", str(other.path), letter, "--yes", "--json").records
    assert (record["ended"], record["output"]) == (True, "Kernel panic\n")
    # It was not there to be asked.
    gone = run("guest", "sysrq", str(other.path), letter, "--yes")
    assert (gone.status, "does not run" in gone.err) == (3, True)


def test_guest_that_ends_of_a_harmless_letter_is_an_error(run: Run, other: SimulatedGuest) -> None:
    other.set_fault(lambda request, datagrams: [DEATH] if request == b"sysrq m" else datagrams)
    assert run("guest", "sysrq", str(other.path), "m").status == 3


def test_guest_of_a_lab_that_ends_of_its_letter_is_no_error(
    run: Run, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sysrq(kernels: FakeKernels, name: str, letter: str) -> str:
        raise MconsoleUnreachable(name, f"sysrq {letter}", "does not run: x", said="Kernel panic\n")

    monkeypatch.setattr(FakeKernels, "sysrq", sysrq)
    with LabThread(runtime, "lan", guests=("left",)):
        done = run("guest", "sysrq", "left", "c", "--yes")
    assert (done.status, done.out, done.err) == (0, "Kernel panic\n", "umlab: guest left has ended\n")


def test_stack_that_is_none_is_explained(run: Run, other: SimulatedGuest) -> None:
    text = b"Received SIGSEGV in SIGSEGV handler, aborting stack trace!\n"
    other.set_fault(lambda request, datagrams: answer(text) if request == b"stack 1" else datagrams)
    done = run("guest", "stack", str(other.path), "1")
    assert done.out == text.decode()
    assert "Nothing is wrong; ask when it idles" in done.err


def test_hostile_answer_is_shown_as_text(run: Run, other: SimulatedGuest) -> None:
    other.set_fault(lambda request, datagrams: answer(b"\x1b[2J\xff") if b"sysrq m" in request else datagrams)
    assert run("guest", "sysrq", str(other.path), "m").out == "\\x1b[2J\\xff\n"
