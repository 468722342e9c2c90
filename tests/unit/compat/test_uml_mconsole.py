"""What ``uml_mconsole`` does better than the original, and what no recording can show."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.answering_guest import Answering, answering_guest
from umlab.compat import uml_mconsole
from umlab.compat._mconsole_shell import Shell
from umlab.testing import SimulatedGuest
from umlab.testing.fault import answer
from umlab.wire.mconsole import ReplyFragment, serialize_reply


class Terminal:
    """A shell with its output in memory."""

    def __init__(self, *, escape: bool = False) -> None:
        self.out = io.BytesIO()
        self.err = io.BytesIO()
        self.shell = Shell(self.out, self.err, escape=escape)

    def run(self, line: bytes) -> tuple[int, bytes, bytes]:
        """Run a line; return its status and what it wrote."""
        begin = self.out.tell(), self.err.tell()
        status = self.shell.run(line)
        return status, self.out.getvalue()[begin[0] :], self.err.getvalue()[begin[1] :]


@pytest.fixture
def guest(short_dir: Path) -> Iterator[Callable[..., tuple[Terminal, SimulatedGuest]]]:
    with contextlib.ExitStack() as stack:

        def make(answering: Answering = answer, *, escape: bool = False) -> tuple[Terminal, SimulatedGuest]:
            console = stack.enter_context(answering_guest(short_dir / "m1/mconsole", answering))
            terminal = Terminal(escape=escape)
            terminal.shell.switch(str(short_dir / "m1"))
            return terminal, console

        yield make


Guest = Callable[..., tuple[Terminal, SimulatedGuest]]


@pytest.mark.parametrize("position", [0, 1])
def test_error_of_any_fragment_gives_an_error_status(guest: Guest, position: int) -> None:
    """The original took the last fragment's number and exited with 0."""
    replies = [serialize_reply(ReplyFragment(-2 if at == position else 0, at == 0, b"part")) for at in (0, 1)]
    terminal, _ = guest(lambda _: replies)
    assert terminal.run(b"config x") == (254, b"ERR partpart\n", b"")


def test_error_number_whose_low_byte_is_0_is_still_an_error(guest: Guest) -> None:
    terminal, _ = guest(lambda _: answer(b"odd", -512))
    assert terminal.run(b"version") == (1, b"ERR odd\n", b"")


def test_terminal_shows_control_characters_of_the_guest(guest: Guest) -> None:
    terminal, _ = guest(lambda _: answer(b"a\x1b[2Jb\n\tc"), escape=True)
    assert terminal.run(b"version")[1] == b"OK a\\x1b[2Jb\n\tc\n"


def test_pipe_gets_the_bytes_of_the_guest(guest: Guest) -> None:
    terminal, _ = guest(lambda _: answer(b"a\x1b[2J\xff"))
    assert terminal.run(b"version")[1] == b"OK a\x1b[2J\xff\n"


@pytest.mark.parametrize("line", [b"version " + b"x" * 510, b"proc a\0b"])
def test_line_that_cannot_be_sent_is_refused(guest: Guest, line: bytes) -> None:
    terminal, console = guest()
    status, out, err = terminal.run(line)
    assert (status, out, err.count(b"\n")) == (1, b"", 1)
    assert b"a console command" in err
    assert console.requests == []


def test_nonsense_from_the_guest_is_one_line(guest: Guest) -> None:
    terminal, _ = guest(lambda _: [b"nonsense"])
    status, out, err = terminal.run(b"version")
    assert (status, out) == (1, b"")
    assert err.endswith(b": message is cut: 8 of 12 bytes\n")


def test_switch_to_a_dead_guest_stays_with_the_living(guest: Guest, short_dir: Path) -> None:
    terminal, console = guest()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(short_dir / "dead"))
    status, out, err = terminal.run(b"switch %s" % bytes(short_dir / "dead"))
    assert (status, out) == (1, b"")
    assert b"nobody listens on" in err
    assert terminal.run(b"version")[:2] == (0, b"OK version\n")
    assert console.requests == [b"version"]


@pytest.mark.parametrize("pid", ["0\n", "-1\n", "1\n", "", "x\n", "99999999999999999999\n"])
def test_int_signals_nobody_when_the_pid_is_no_guest(
    guest: Guest, short_dir: Path, pid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original called kill(0, SIGINT) without a pid, and ended its caller's process group."""
    signalled: list[tuple[int, int]] = []

    def kill(pid: int, number: int) -> None:
        if pid > 2**31:
            raise OverflowError("signed integer is greater than maximum")
        signalled.append((pid, number))

    monkeypatch.setattr(os, "kill", kill)
    terminal, _ = guest()
    (short_dir / "m1/pid").write_text(pid)
    refusal = b"Cannot determine the PID of your UML session, not sending signal.\n"
    assert terminal.run(b"int") == (1, refusal, b"")
    assert signalled == []


def test_int_of_a_dead_guest_does_not_trust_its_pid_file(short_dir: Path) -> None:
    terminal = Terminal()
    with (
        answering_guest(short_dir / "m1/mconsole") as guest,
        subprocess.Popen(["sleep", "1000"]) as bystander,
    ):
        terminal.shell.switch(str(guest.run_directory))
        guest.die()
        (guest.run_directory / "pid").write_text(f"{bystander.pid}\n")
        status, out, err = terminal.run(b"int")
        bystander.terminate()
        assert bystander.wait() == -signal.SIGTERM
    assert (status, out) == (1, b"")
    assert b"does not run" in err


def test_int_of_a_process_that_is_gone_says_so(
    guest: Guest, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(pid: int, number: int) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(os, "kill", kill)
    terminal, _ = guest()
    (short_dir / "m1/pid").write_text("12345\n")
    assert terminal.run(b"int") == (1, b"", b"guest %s does not run\n" % bytes(short_dir / "m1"))


def test_int_of_another_users_guest_says_so(
    guest: Guest, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", kill)
    terminal, _ = guest()
    (short_dir / "m1/pid").write_text("12345\n")
    assert terminal.run(b"int") == (1, b"", b"guest %s belongs to another user\n" % bytes(short_dir / "m1"))


@pytest.mark.parametrize("line", [b"version", b"int"])
def test_without_a_guest_a_command_says_how_to_get_one(line: bytes) -> None:
    terminal = Terminal()
    assert terminal.shell.prompt == b"([None]) "
    assert terminal.run(line) == (1, b"", b"no guest; name one with: switch <name>\n")


def test_log_stops_at_the_first_refused_piece(guest: Guest) -> None:
    terminal, console = guest(lambda _: answer(b"no", 1))
    assert terminal.run(b"log " + b"x" * 1000) == (1, b"ERR no\n", b"")
    assert len(console.requests) == 1


def test_disk_with_an_already_absolute_name_keeps_it(guest: Guest, short_dir: Path) -> None:
    terminal, console = guest()
    terminal.run(b"config ubda=/dev/null")
    assert console.requests == [b"config ubda=/dev/null"]


def test_reader_that_leaves_ends_the_program_as_the_original(short_dir: Path) -> None:
    with answering_guest(short_dir / "m1/mconsole", lambda _: answer(b"x" * 200_000)):
        program = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "from umlab.compat.uml_mconsole import main; main()",
                str(short_dir / "m1"),
                "help",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert program.stdout is not None
        assert program.stderr is not None
        program.stdout.close()
        assert (program.wait(), program.stderr.read()) == (-signal.SIGPIPE, b"")
        program.stderr.close()


def test_without_readline_the_prompt_still_works(
    guest: Guest, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal, _ = guest()
    monkeypatch.setitem(sys.modules, "readline", None)
    monkeypatch.setattr("sys.stdin", io.StringIO("version\n"))
    previous = signal.getsignal(signal.SIGINT)
    try:
        assert list(uml_mconsole._typed(terminal.shell)) == [b"version"]
    finally:
        signal.signal(signal.SIGINT, previous)
    assert b"no readline" in terminal.err.getvalue()
