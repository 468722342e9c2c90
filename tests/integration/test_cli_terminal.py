"""What people see: attaching to a guest, tables that fit, and pages that are drawn anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until
from support.fake_lab import FakeLab
from support.lab_thread import LabThread
from support.terminal_session import TerminalSession

pytestmark = pytest.mark.integration

UMLAB = str(Path(sys.executable).with_name("umlab"))


def environment(runtime: Path) -> dict[str, str]:
    # The size of the window is the terminal's to tell.
    inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
    return inherited | {"XDG_RUNTIME_DIR": str(runtime), "TERM": "xterm"}


def line_of(daemon: LabThread) -> int:
    """Return the guest's end of its terminal, which shows nothing by itself from now on."""

    def line(lab: FakeLab) -> int:
        return lab.guest_by_name["left"].line

    wait_until(lambda: daemon.call(line) >= 0, 30, "somebody to attach")
    fd = daemon.call(line)
    attributes = termios.tcgetattr(fd)
    attributes[1] = attributes[3] = 0
    attributes[6][termios.VMIN] = 1
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    return fd


def test_terminal_becomes_the_guests(short_dir: Path) -> None:
    """Keys go to the guest, Ctrl-C as well; the window's size is known there; Ctrl-] leaves."""
    argv = [UMLAB, "guest", "attach", "left"]
    with (
        LabThread(short_dir, "lan", guests=("left",)) as daemon,
        TerminalSession(argv, environment(short_dir), (33, 111)) as session,
    ):
        before = session.modes()
        session.wait_for("umlab: left con1; Ctrl-] leaves")
        line = line_of(daemon)
        os.write(line, b"login: ")
        session.wait_for("login: ")
        assert session.modes() != before
        session.type("root\x03")
        data = b""
        while len(data) < 5:
            data += os.read(line, 99)
        assert data == b"root\x03"
        wait_until(lambda: tuple(os.get_terminal_size(line)) == (111, 33), 20, "the window's size")
        session.resize(44, 99)
        wait_until(lambda: tuple(os.get_terminal_size(line)) == (99, 44), 20, "the window's new size")
        session.type("\x1d")
        session.wait_for("umlab: detached from left")
        assert session.modes() == before
        assert session.wait() == 0


@pytest.mark.parametrize("end", ["guest", "signal"])
def test_terminal_is_put_back_however_it_ends(end: str, short_dir: Path) -> None:
    argv = ["/bin/sh", "-c", f"{UMLAB} guest attach left; echo status $?; sleep 100"]
    with (
        LabThread(short_dir, "lan", guests=("left",)) as daemon,
        TerminalSession(argv, environment(short_dir)) as session,
    ):
        before = session.modes()
        session.wait_for("leaves")
        line_of(daemon)
        wait_until(lambda: session.modes() != before, 20, "raw mode")
        if end == "guest":
            daemon.call(lambda lab: lab.guest_by_name["left"].end())
            session.wait_for("umlab: left has ended")
            session.wait_for("status 0")
        else:
            (pid,) = _attached()
            os.kill(pid, signal.SIGTERM)
            session.wait_for(f"status {128 + signal.SIGTERM}")
        assert session.modes() == before


def _attached() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            grandparent = int(Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if b"attach" in words and grandparent == os.getpid():
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("how", ["pipe", "file"])
def test_input_that_is_no_terminal_is_sent_and_the_answer_drained(how: str, short_dir: Path) -> None:
    with LabThread(short_dir, "lan", guests=("left",)) as daemon:
        source = short_dir / "input"
        source.write_bytes(b"date\x1d\n" + b"x" * 100_000)
        with (
            source.open("rb") as file,
            subprocess.Popen(
                [UMLAB, "guest", "attach", "left"],
                stdin=file if how == "file" else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(short_dir),
            ) as attached,
        ):
            line = line_of(daemon)
            if attached.stdin:
                attached.stdin.write(source.read_bytes())
                attached.stdin.close()
            typed = b""
            while len(typed) < len(source.read_bytes()):
                typed += os.read(line, 4096)
            os.write(line, b"today\n")
            assert attached.wait(scaled(20)) == 0
            assert attached.stdout
            assert attached.stderr
            assert attached.stdout.read().endswith(b"today\n")
            assert attached.stderr.read() == b""
    # The detach key is a key: in a pipe it is a byte like any other.
    assert typed == source.read_bytes()


def test_daemon_that_ends_is_told(short_dir: Path) -> None:
    argv = [UMLAB, "guest", "attach", "left"]
    with LabThread(short_dir, "lan", guests=("left",)) as daemon:
        session = TerminalSession(argv, environment(short_dir))
        session.wait_for("leaves")
        line_of(daemon)
    with session:
        session.wait_for("\r\numlab: lan: the daemon ended, the guest left may run on")
        assert session.wait() == 1


def test_table_fits_a_narrow_terminal(short_dir: Path) -> None:
    with LabThread(short_dir, "lan", ("lan",)) as daemon:
        daemon.call(lambda lab: lab.add_port("lan", 1))
        argv = [UMLAB, "switch", "show", "lan"]
        with TerminalSession(argv, environment(short_dir), (24, 60)) as session:
            assert session.wait() == 0
            narrow = session.shown.decode()
        with TerminalSession(argv, environment(short_dir), (24, 150)) as session:
            assert session.wait() == 0
            wide = session.shown.decode()
    lines = [line.rstrip() for line in _visible(narrow).replace("\r", "").split("\n")]
    assert max(map(len, lines)) <= 60
    assert "PORT  KIND       STATE  VLAN  GUEST  RX  TX  DROPPED" in lines
    assert "eth0=daemon,,unix,/run/lan.ctl" in lines[-5]
    assert "MAC                RX  TX  DROPPED  REASONS  QUEUED" in _visible(wide)


def _visible(text: str) -> str:
    import re

    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def test_page_is_drawn_anew_in_its_place(short_dir: Path) -> None:
    with LabThread(short_dir, "lan", ("lan",)) as daemon:
        argv = [UMLAB, "switch", "ls", "--watch", "0.1"]
        with TerminalSession(argv, environment(short_dir), (24, 100)) as session:
            session.wait_for("lan")
            daemon.call(lambda lab: lab.add_port("lan", 1))
            # The cursor goes up before the new rows.
            session.wait_for("\x1b[1A")
            session.wait_for("1       1    1  up")
            session.type("\x03")
            assert session.wait() == 128 + signal.SIGINT


def test_page_is_repeated_where_there_is_no_terminal(short_dir: Path) -> None:
    with (
        LabThread(short_dir, "lan", ("lan",)),
        subprocess.Popen(
            [UMLAB, "switch", "ls", "--json", "--watch", "0.1"],
            stdout=subprocess.PIPE,
            env=environment(short_dir),
        ) as watching,
    ):
        assert watching.stdout
        lines = [watching.stdout.readline() for _ in range(3)]
        watching.send_signal(signal.SIGINT)
        assert watching.wait(scaled(20)) == 128 + signal.SIGINT
    assert lines[0] == lines[1] == lines[2] != b""


def test_events_come_as_they_happen(short_dir: Path) -> None:
    with (
        LabThread(short_dir, "lan") as daemon,
        subprocess.Popen(
            [UMLAB, "events", "--from", "oldest"], stdout=subprocess.PIPE, env=environment(short_dir)
        ) as following,
    ):
        assert following.stdout
        for number in range(3):
            record = {"event": "port_attached", "port_no": number}
            daemon.call(lambda lab, record=record: lab.events.publish(record))
            line = following.stdout.readline().decode()
            assert line.endswith(f"  lan  port attached: port_no {number}\n")
        following.send_signal(signal.SIGINT)
        assert following.wait(scaled(20)) == 128 + signal.SIGINT
