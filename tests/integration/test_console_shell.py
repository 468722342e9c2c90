"""The console's shell on a terminal, as a person sees it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from support.deadline import wait_until
from support.screen_session import ScreenSession
from umlab.testing import SimulatedGuests
from umlab.testing.fault import escapes, silent

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

UMLAB = str(Path(sys.executable).with_name("umlab"))
VERSION = "Linux (none) 6.1.176 #1 Sat Jul  4 15:38:16 UTC 2026 x86_64"


@pytest.fixture
def guests(short_dir: Path) -> Iterator[SimulatedGuests]:
    directory = short_dir / ".uml"
    directory.mkdir()
    with SimulatedGuests(directory) as made:
        yield made


def shell(short_dir: Path, names: Sequence[str], *command: str, **environment: str) -> ScreenSession:
    """Return the console of guests, by their paths: others of this machine may have such names."""
    inherited = {
        key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")
    }
    own = {"HOME": str(short_dir), "XDG_STATE_HOME": str(short_dir / "s"), "TERM": "xterm"}
    places = [f"{short_dir}/.uml/{name}" for name in names]
    return ScreenSession([UMLAB, "console", *places, *command], inherited | own | environment, (40, 100))


def test_a_day_at_the_console(short_dir: Path, guests: SimulatedGuests) -> None:
    """Completion, answers in colour, the toolbar, fan-out, confirmation, history, and leaving."""
    web1, _, db, evil = (guests.add(name) for name in ("web1", "web2", "db", "evil"))
    evil.set_fault(escapes)
    with shell(short_dir, ["web1", "web2", "db", "evil"]) as session:
        before = session.modes()
        session.wait_for_line(lambda line: line == "web1>", "prompt")
        session.wait_for_line(
            lambda line: line == " web1  no lab  answers  6.1.176  load 0.00 0.00 0.00", "toolbar"
        )
        assert session.style_of("answers").bg == "green"

        session.type("ver")
        session.wait_for_line(lambda line: "version  show the kernel's name" in line, "menu")
        session.type("\t\r")
        session.wait_for_line(lambda line: line == f"OK {VERSION}", "answer")
        assert session.style_of("OK Linux").fg == "green"
        session.type("bogus\r")
        session.wait_for_line(lambda line: line == "ERR Unknown command", "error")
        assert session.style_of("ERR Unknown").fg == "red"

        session.type("sysrq ")
        session.wait_for_line(lambda line: "reboot at once, without syncing disks (deadly)" in line, "keys")
        session.type("\x15@w")
        session.wait_for_line(lambda line: "web2" in line and ".uml/web2/mconsole" in line, "guests")
        session.type("\x15@web* version\r")
        session.wait_for_line(lambda line: line == f"web1, web2  OK   {VERSION}", "answers side by side")

        session.type("@evil version\r")
        session.wait_for_line(lambda line: "\\x1b]0;owned\\x07\\x1b[2J" in line, "words of a hostile guest")
        assert b"\x1b]0;owned" not in session.shown

        session.type("switch db\r")
        session.wait_for_line(lambda line: line == "db>", "prompt of the other guest")
        session.type("stop\r")
        session.wait_for_line(
            lambda line: line == " db  no lab  stopped  6.1.176  load 0.00 0.00 0.00", "stop"
        )
        session.type("halt\r")
        session.wait_for_line(lambda line: line.endswith("Send it to db? [y/N]"), "question")
        session.type("n\r")
        session.wait_for_line(lambda line: line == "db>", "prompt after the question")
        assert b"halt" not in db.requests
        # What was answered to the question is no line of the history.
        session.type("\x1b[A\r")
        session.wait_for_line(lambda line: line.endswith("Send it to db? [y/N]"), "the question again")
        session.type("y\r")
        session.wait_for_line(lambda line: line == " db  no lab  unreachable", "the end of the guest")
        assert db.requests[-1] == b"halt"
        session.type("\x04")
        assert session.wait() == 0
        assert session.modes() == before
    history = short_dir / "s/umlab/.console_history"
    assert history.stat().st_mode & 0o777 == 0o600
    assert "+@web* version\n" in history.read_text()
    assert web1.requests.count(b"bogus") == 1


def test_interrupt_stops_waiting_and_not_the_shell(short_dir: Path, guests: SimulatedGuests) -> None:
    guests.add("web1")
    hung = guests.add("hung", fault=silent)
    with shell(short_dir, ["hung", "web1"]) as session:
        # The toolbar's question waits for its answer, and nothing else does.
        session.type("@all proc version\r")
        session.wait_for_line(lambda line: line.startswith("1 of 2 answered in "), "progress")
        session.type("\x03")
        session.wait_for_line(lambda line: line == "hung  ERR  not waited for", "what came until then")
        session.wait_for_line(lambda line: line.startswith("web1  OK   Linux version"), "the other answer")
        session.type("half a line\x03")
        hung.set_fault(None)
        session.type("version\r")
        session.wait_for_line(lambda line: line == f"OK {VERSION}", "answer")
        session.type("quit\r")
        assert session.wait() == 0


def test_interrupted_command_leaves_no_word_of_how_far_it_was(
    short_dir: Path, guests: SimulatedGuests
) -> None:
    guests.add("hung", fault=silent)
    with shell(short_dir, ["hung"], "--", "version") as session:
        session.wait_for_line(lambda line: line.startswith("0 of 1 answered in "), "progress")
        session.type("\x03")
        assert session.wait() == 128 + signal.SIGINT
        assert not any("answered" in line for line in session.lines)


def test_terminal_is_put_back_when_a_signal_ends_the_shell(short_dir: Path, guests: SimulatedGuests) -> None:
    guests.add("web1")
    with shell(short_dir, ["web1"], NO_COLOR="1") as session:
        before = session.modes()
        session.wait_for_line(lambda line: line.startswith(" web1  no lab  answers"), "toolbar")
        assert {session.style_of("answers").bg, session.style_of("answers").fg} == {"default"}
        wait_until(lambda: session.modes() != before, 20, "a prompt")
        os.kill(session.pid, signal.SIGTERM)
        assert session.wait() == 128 + signal.SIGTERM
        assert session.modes() == before


@pytest.mark.parametrize(
    ("answer", "status", "sent"), [("\x03", 128 + signal.SIGINT, []), ("y\r", 0, [b"halt"]), ("\x04", 1, [])]
)
def test_one_command_that_is_deadly_is_asked_back(
    short_dir: Path, guests: SimulatedGuests, answer: str, status: int, sent: list[bytes]
) -> None:
    web = guests.add("web1")
    with shell(short_dir, ["web1"], "--", "halt") as session:
        session.wait_for("Send it to web1? [y/N] ")
        session.type(answer)
        assert session.wait() == status
    assert web.requests == sent
