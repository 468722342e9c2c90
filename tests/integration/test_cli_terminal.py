"""What people see: attaching to a guest, tables that fit, and pages that are drawn anew."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until
from support.fake_lab import FakeLab
from support.hostile_output import HOSTILE, OURS
from support.lab_thread import LabThread
from support.require import require_program
from support.terminal_session import TerminalSession

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

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


def test_input_for_a_guest_that_has_ended_is_not_lost_in_silence(short_dir: Path) -> None:
    with LabThread(short_dir, "lan", guests=("left",)) as daemon:
        daemon.call(lambda lab: lab.guest_by_name["left"].end())
        attached = subprocess.run(
            [UMLAB, "guest", "attach", "left"],
            input=b"date\n",
            capture_output=True,
            env=environment(short_dir),
            timeout=scaled(20),
        )
    assert attached.stderr == b"umlab: left has ended, before it had all of the input\n"
    assert (attached.returncode, attached.stdout) == (1, b"")


def test_viewer_waits_for_the_next_daemon(short_dir: Path) -> None:
    argv = [UMLAB, "guest", "attach", "left", "--detach-key", "^A"]
    with LabThread(short_dir, "lan", guests=("left",)) as daemon:
        session = TerminalSession(argv, environment(short_dir), (7, 50))
        session.wait_for("umlab: left con1; Ctrl-A leaves")
        line_of(daemon)
    with session:
        session.wait_for("\r\numlab: lan: the daemon has ended; waiting for the next one")
        with LabThread(short_dir, "lan", guests=("left",)) as daemon:
            line = line_of(daemon)
            wait_until(lambda: tuple(os.get_terminal_size(line)) == (50, 7), 20, "the window's size")
            os.write(line, b"back again")
            session.wait_for("back again")
            session.type("\x1d")
            assert os.read(line, 9) == b"\x1d"
            session.type("\x01")
            session.wait_for("umlab: detached from left")
            assert session.wait() == 0


def test_daemon_that_does_not_come_back_is_told(short_dir: Path) -> None:
    script = "from umlab.cli import attach_session, main; attach_session.RETRY_TIME = 0.5; main.main()"
    argv = [sys.executable, "-c", script, "guest", "attach", "left"]
    with LabThread(short_dir, "lan", guests=("left",)) as daemon:
        session = TerminalSession(argv, environment(short_dir))
        session.wait_for("leaves")
        line_of(daemon)
    with session:
        session.wait_for("\r\numlab: lan: the daemon ended, the guest left may run on")
        assert session.wait() == 1


def test_viewer_of_a_lab_that_is_stopped_waits_for_nobody(short_dir: Path) -> None:
    with LabThread(short_dir, "lan", guests=("left",)) as daemon:
        session = TerminalSession([UMLAB, "guest", "attach", "left"], environment(short_dir))
        session.wait_for("leaves")
        line_of(daemon)
    with session:
        session.wait_for("waiting for the next one")
        # As the last act of a lab's daemon.
        shutil.rmtree(short_dir / "umlab" / "lan")
        session.wait_for("umlab: left has ended")
        assert session.wait() == 0


def test_viewer_that_only_looks_is_driven_by_nobody(short_dir: Path) -> None:
    """What reaches the terminal is of our making, and nothing that is typed reaches the guest."""
    argv = [UMLAB, "guest", "attach", "left", "--read-only"]
    with LabThread(short_dir, "lan", guests=("left",)) as daemon:
        daemon.call(lambda lab: lab.guest_by_name["left"].open_terminal().resize(10, 100))
        line = line_of(daemon)
        with TerminalSession(argv, environment(short_dir), (6, 40)) as session:
            before = session.modes()
            session.wait_for("left: only looking; Ctrl-] leaves")
            for each in HOSTILE:
                os.write(line, each + b"\x18\r\n")
            os.write(line, b"\x1b[2J\x1b[9;80Hthe end")
            session.wait_for("the end")
            session.resize(12, 30)
            session.wait_for("the end")
            session.type("rm -rf /\r\x03\x1d")
            session.wait_for("umlab: detached from left")
            assert session.wait() == 0
            assert session.modes() == before
        os.set_blocking(line, False)
        with pytest.raises(BlockingIOError):
            os.read(line, 1)
        assert tuple(os.get_terminal_size(line)) == (100, 10)
    drawn, _, rest = session.shown.decode().partition("\x1b[?1049l")
    assert OURS.fullmatch(drawn)
    assert rest == "\r\numlab: detached from left\r\n"
    for words in (
        ("--read-only",),
        ("--detach-key", "q"),
        ("--all",),
        ("--all", "--tmux", "--console", "con1"),
    ):
        done = subprocess.run(
            [UMLAB, "guest", "attach", "left", *words], stdin=subprocess.DEVNULL, check=False
        )
        assert done.returncode == 2


@pytest.fixture
def tmux(short_dir: Path) -> Iterator[dict[str, str]]:
    """Return an environment in which there is a tmux of its own; it ends with the test."""
    program = require_program("tmux")
    env = environment(short_dir) | {
        "TMUX_TMPDIR": str(short_dir),
        "HOME": str(short_dir),
        "LC_ALL": "C.UTF-8",
    }
    env.pop("TMUX", None)
    yield env
    found = subprocess.run(
        [program, "display-message", "-p", "#{pid}"], env=env, capture_output=True, text=True, check=False
    )
    subprocess.run([program, "kill-server"], env=env, capture_output=True, check=False)
    if found.stdout.strip():
        server = Path(f"/proc/{found.stdout.strip()}")
        wait_until(lambda: not server.exists(), 20, "tmux to end")


def test_lab_is_laid_out_in_tmux(short_dir: Path, tmux: dict[str, str]) -> None:
    """A pane per guest with its name; typed keys go to one; inside of tmux the client goes there."""
    guests = tuple(f"g{number}" for number in range(5))
    argv = [UMLAB, "guest", "attach", "--all", "--tmux"]
    with LabThread(short_dir, "lan", guests=guests) as daemon:
        with TerminalSession([*argv, "lan"], tmux, (40, 120)) as session:
            session.wait_for("[umlab-lan")
            wait_until(
                lambda: daemon.call(lambda lab: all(lab.guest_by_name[name].line >= 0 for name in guests)),
                30,
                "a viewer of each guest",
            )
            line = daemon.call(lambda lab: lab.guest_by_name["g3"].line)
            os.write(line, b"hello from g3")
            # Of two windows the first one is shown.
            session.wait_for("hello from g3")
            assert all(f" {name} " in session.shown.decode() for name in guests[:4])
            assert " g4 " not in session.shown.decode()
            first = daemon.call(lambda lab: lab.guest_by_name["g0"].line)
            session.type("for g0\r")
            assert os.read(first, 9) == b"for g0\n"
        listed = subprocess.run(
            ["tmux", "list-panes", "-s", "-t", "umlab-lan", "-F", "#{window_name} #{pane_title}"],
            env=tmux,
            capture_output=True,
            text=True,
            check=True,
        )
        assert listed.stdout.splitlines() == ["g0 g0", "g0 g1", "g0 g2", "g0 g3", "g4 g4"]
        inside = shlex.join(["tmux", "new-session", "-s", "mine", shlex.join(argv)])
        with TerminalSession(["/bin/sh", "-c", inside], tmux, (40, 120)) as session:
            session.wait_for("hello from g3")
            session.wait_for("[umlab-lan")


def test_tmux_that_is_missing_or_has_nothing_to_show(short_dir: Path) -> None:
    def said(env: dict[str, str], *words: str) -> str:
        argv = [UMLAB, "guest", "attach", "--all", "--tmux", *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == (3 if "gone" in words else 1)
        return done.stderr

    env = environment(short_dir)
    assert said(env) == "umlab: no lab runs\n"
    assert "gone" in said(env, "gone")
    with LabThread(short_dir, "lan"), LabThread(short_dir, "ring"):
        assert said(env) == "umlab: write the lab's name, one of lan, ring\n"
        assert said(env, "lan") == "umlab: lan: no guest runs\n"
        assert "Debian package tmux" in said(env | {"PATH": str(short_dir)}, "lan")


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
