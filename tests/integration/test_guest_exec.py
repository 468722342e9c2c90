"""Commands in a real guest, and files in and out: one kernel for all of it, whose end comes last."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled, wait_until
from support.terminal_session import TerminalSession
from umlab.cli.main import main
from umlab.client import Client
from umlab.client.exec import Exec, ExecOrder, ExecResult
from umlab.errors import CommandTimeout, ConnectionLost, GuestFailed, StateError
from umlab.guest.cmdline import GuestSpec

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

UMLAB = str(Path(sys.executable).with_name("umlab"))
LONG = scaled(60)


@pytest.fixture(scope="module")
def lab() -> Iterator[BackgroundLab]:
    with BackgroundLab("ring", guests=(GuestSpec("left", debian_kernel(), memory=256 << 20),)) as lab:
        yield lab


def sh(script: str, *, data: bytes | None = None, timeout: float = LONG) -> ExecResult:
    """Run a script in the guest."""
    with Client("ring") as client:
        return client.exec("left", ["sh", "-c", script], input=data, timeout=timeout)


def begin(*argv: str) -> Exec:
    """Begin a command in the guest and wait until it runs."""
    running = Client("ring").open_exec("left", ExecOrder(argv))
    output = running.read(LONG)
    assert output is not None
    return running


def copied(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run the command in this process and return its status."""
    monkeypatch.setattr(sys, "argv", ["umlab", "guest", "cp", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def processes(name: str) -> int:
    """Return how many processes of a name the guest has."""
    with Client("ring") as client:
        return sum(each.name == name for each in client.processes("left"))


def test_guest_that_boots_is_waited_for(lab: BackgroundLab) -> None:
    assert sh("echo up") == ExecResult(0, b"up\n", b"")


def test_streams_status_and_surroundings(lab: BackgroundLab) -> None:
    assert sh("echo out; echo bad >&2; exit 3") == ExecResult(3, b"out\n", b"bad\n")
    assert sh("kill -9 $$") == ExecResult(137, b"", b"")
    with Client("ring") as client:
        facts = client.exec(
            "left", ["sh", "-c", 'echo "$A" $PWD'], environment={"A": "'b  c"}, directory="/etc"
        )
        assert facts.stdout == b"'b  c /etc\n"
        for word in ("no-such-program", "cd"):
            said = f"umlab: {word}: no such command in the guest\n".encode()
            assert client.exec("left", [word]) == ExecResult(127, b"", said)
        assert client.exec("left", ["/etc/passwd"]).status == 126
        assert client.exec("left", ["pwd"], directory="/nowhere").status == 126
        assert client.exec("left", ["printf", "%s|", "a b", "", "*", "$x", "'"]).stdout == b"a b||*|$x|'|"
        facts = client.exec(
            "left", ["sh", "-c", 'printf %s "$A$1"', "", "b\udcff"], environment={"A": "\udcfe"}
        )
        assert facts.stdout == b"\xfeb\xff"


def test_ten_megabytes_of_anything_go_both_ways(lab: BackgroundLab) -> None:
    data = os.urandom(10_000_000)
    result = sh("cat; echo end >&2", data=data)
    assert (result.status, result.stderr) == (0, b"end\n")
    assert result.stdout == data


def test_more_commands_than_sessions_wait_for_their_turn(lab: BackgroundLab) -> None:
    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(lambda number: sh(f"sleep 0.1; echo {number}"), range(12)))
    assert [each.stdout for each in results] == [b"%d\n" % number for number in range(12)]


def test_commands_follow_each_other(lab: BackgroundLab) -> None:
    # What copies their output is begun anew meanwhile.
    for number in range(25):
        assert sh(f"echo {number}; echo e >&2") == ExecResult(0, b"%d\n" % number, b"e\n")


def test_what_nobody_waits_for_is_killed(lab: BackgroundLab) -> None:
    with begin("yes") as running:
        # It waits in the guest until somebody reads, and other commands do not.
        assert sh("echo on").stdout == b"on\n"
        assert running.read() is not None
    wait_until(lambda: not processes("yes"), 20, "the end of what floods")
    with pytest.raises(CommandTimeout):
        sh("tail -f /dev/null; true", timeout=0.5)
    wait_until(lambda: not processes("tail"), 20, "the end of what took too long")


def test_what_a_command_leaves_behind_holds_nobody_up(lab: BackgroundLab) -> None:
    assert sh("tail -f /dev/null & echo begun", timeout=scaled(20)).stdout == b"begun\n"
    assert processes("tail") == 1
    assert sh("killall tail").status == 0
    # What copies a command's output is not meant.
    assert sh("killall cat; echo on").stdout == sh("echo on").stdout == b"on\n"
    # More than there are sessions: what was left behind is cut off, and never heard again.
    with ThreadPoolExecutor(10) as pool:
        for script in ("(sleep 2; echo late) & echo begun", "sleep 0.4; echo begun"):
            assert {each.stdout for each in pool.map(sh, [script] * 10)} == {b"begun\n"}


def test_terminal_window_and_keys(lab: BackgroundLab) -> None:
    argv = [UMLAB, "guest", "exec", "left", "--", "sh"]
    with TerminalSession(argv, os.environ | {"TERM": "xterm"}, (30, 91)) as session:
        session.wait_for("# ")
        session.type("stty size; echo $TERM-$((6 * 7))\n")
        session.wait_for("30 91")
        session.wait_for("xterm-42")
        session.resize(31, 92)
        session.type("tail -f /dev/null\n")
        wait_until(lambda: processes("tail"), 20, "a program in the foreground")
        session.type("\x03")
        session.wait_for("# ")
        session.type("stty size; exit 9\n")
        session.wait_for("31 92")
        assert session.wait() == 9


def test_signals_of_ours_are_the_commands(lab: BackgroundLab) -> None:
    script = "trap 'echo caught; exit 5' TERM; echo on; while :; do sleep 0.1; done"
    argv = [UMLAB, "guest", "exec", "left", "--", "sh", "-c", script]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        process.terminate()
        assert process.stdout.read() == b"caught\n"
        assert process.wait(LONG) == 5


def test_files_go_in_and_out(
    lab: BackgroundLab,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/data").write_bytes(os.urandom(3_000_000))
    (tree / "sub/.hid den").write_text("x")
    os.symlink("sub/data", tree / "link")
    (tree / "sub/data").chmod(0o751)
    os.utime(tree / "sub/data", (1, 1_000_000_000))
    assert copied(monkeypatch, str(tree), "left:/tmp/new") == 0
    assert capfdbinary.readouterr().err == b""
    said = sh("cd /tmp/new; stat -c '%a %Y %s' sub/data; readlink link; ls -A sub").stdout
    assert said == b"751 1000000000 3000000\nsub/data\n.hid den\ndata\n"
    assert copied(monkeypatch, "--json", "left:/tmp/new", str(tmp_path)) == 0
    record = json.loads(capfdbinary.readouterr().out)
    assert record.pop("seconds") > 0
    facts = {"lab": "ring", "guest": "left", "path": "/tmp/new", "files": 2, "bytes": 3_000_001}
    assert record == facts | {"problems": []}
    copy = tmp_path / "new"
    assert (copy / "sub/data").read_bytes() == (tree / "sub/data").read_bytes()
    assert (copy / "sub/data").stat().st_mode & 0o777 == 0o751
    assert (copy / "sub/data").stat().st_mtime == 1_000_000_000
    assert os.readlink(copy / "link") == "sub/data"
    with (tmp_path / "it's sparse").open("wb") as file:
        for at in (0, 200 << 20):
            file.seek(at)
            file.write(b"data")
        file.truncate(300 << 20)
    (tmp_path / "it's sparse").chmod(0o640)
    assert copied(monkeypatch, str(tmp_path / "it's sparse"), "left:/tmp") == 0
    script = """cd /tmp; stat -c '%a %s' it*; du -k it* | cut -f 1
        dd if="it's sparse" bs=1M skip=200 count=1 | head -c 5; rm it*; ls -A"""
    assert sh(script).stdout == b"640 314572800\n8\ndata\0new\n"
    (tmp_path / "it's sparse").unlink()
    # Into a folder that is there: it keeps what it has.
    sh("rm -r /tmp/new/sub; mkdir /tmp/new/tree /tmp/new/tree/sub; echo kept >/tmp/new/tree/sub/kept")
    assert copied(monkeypatch, "--all", "--json", str(tree), ":/tmp/new") == 0
    assert json.loads(capfdbinary.readouterr().out).items() >= facts.items()
    assert sh("cat /tmp/new/tree/sub/kept; ls -A /tmp/new").stdout == b"kept\nlink\ntree\n"
    argv = [UMLAB, "guest", "cp", "-", "left:/tmp/stdin"]
    assert subprocess.run(argv, input=b"\0\xff", timeout=LONG, check=False).returncode == 0
    assert copied(monkeypatch, "left:/tmp/stdin", "-") == 0
    assert capfdbinary.readouterr().out == b"\0\xff"
    for words, text in (
        (("left:/nowhere", str(tmp_path)), "left: /nowhere: no such file or folder"),
        ((str(tree), "left:/tmp/nowhere/"), "left: /tmp/nowhere/: no such folder"),
        ((str(tree), "left:/tmp/nowhere/a"), "left: /tmp/nowhere: no such folder"),
        ((str(tree), "left:/tmp/stdin"), "left: /tmp/stdin: is no folder"),
        (("left:/dev/null", str(tmp_path)), "neither a file, a folder nor a link"),
    ):
        assert copied(monkeypatch, *words) == 1
        assert text in capfdbinary.readouterr().err.decode()
    assert sh("cat /tmp/stdin; ls -A /tmp").stdout == b"\0\xffnew\nstdin\n"
    # In another file system, where there is no room.
    sh("cd /tmp/new/tree; mkdir -p sub; mount -t tmpfs -o size=1M tmpfs sub; echo old >sub/data")
    for source, place in ((tree, "left:/tmp/new"), (tree / "sub/data", "left:/tmp/new/tree/sub/data")):
        assert copied(monkeypatch, str(source), place) == 1
        assert "No space left on device" in capfdbinary.readouterr().err.decode()
    script = "cd /tmp/new/tree; cat sub/data; ls -A .. . sub; umount sub; cd; rm -r /tmp/*"
    assert sh(script).stdout.split() == b"old .: link sub ..: link tree sub: data".split()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "tree"]


def test_interrupted_copy_leaves_nothing(lab: BackgroundLab, tmp_path: Path) -> None:
    argv = [UMLAB, "guest", "cp", "-", "left:/root/half"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(bytes(1 << 20))
        process.stdin.flush()
        wait_until(lambda: sh("ls -A /root").stdout.startswith(b".umlab-"), 20, "the copy begins")
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG) == 130
    wait_until(lambda: sh("ls -A /root").stdout == b"", 20, "everything is removed")
    argv = [UMLAB, "guest", "cp", "left:/proc/kmsg", str(tmp_path / "half")]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as process:
        wait_until(lambda: list(tmp_path.iterdir()), 20, "the copy begins")
        process.send_signal(signal.SIGINT)
        process.wait(LONG)
    assert list(tmp_path.iterdir()) == []


def test_stopped_guest_is_waited_for_until_the_time_is_over(lab: BackgroundLab) -> None:
    with Client("ring") as client:
        client.mconsole("left", "stop")
        try:
            with pytest.raises(CommandTimeout):
                sh("true", timeout=0.5)
        finally:
            client.mconsole("left", "go")
    assert sh("echo on").stdout == b"on\n"


def test_agent_that_is_killed_begins_anew(lab: BackgroundLab) -> None:
    with pytest.raises(StateError, match="the agent in guest left was killed"):
        sh("kill -9 -1")
    assert sh("echo again").stdout == b"again\n"


def test_command_does_not_outlive_its_daemon(lab: BackgroundLab) -> None:
    with begin("sh", "-c", "echo on; tail -f /dev/null; true") as running:
        lab.upgrade_daemon()
        with pytest.raises(ConnectionLost):
            running.read(LONG)
    assert sh("echo on").stdout == b"on\n"
    assert processes("tail") == 0


def test_reboot_ends_commands_and_more_may_come(lab: BackgroundLab) -> None:
    with begin("sh", "-c", "echo on; tail -f /dev/null; true") as running:
        with Client("ring") as client:
            client.mconsole("left", "reboot")
        with pytest.raises(StateError, match="has rebooted"):
            running.read(LONG)
    assert sh("echo again").stdout == b"again\n"
    # What was sent to the kernel that goes is not for the one that comes, and what waits for a session is.
    with Client("ring") as client:
        client.mconsole("left", "reboot")
    with ThreadPoolExecutor() as pool:
        told = [pool.submit(sh, "echo late") for _ in range(3)]
    for each in told:
        assert isinstance(each.exception(), StateError) or each.result().stdout == b"late\n"
    assert [sh(f"echo {number}").stdout for number in range(2)] == [b"0\n", b"1\n"]


def test_end_of_the_guest_is_told(lab: BackgroundLab) -> None:
    with begin("sh", "-c", "echo on; tail -f /dev/null") as running, Client("ring") as client:
        killer = threading.Thread(target=client.remove_guest, args=("left",))
        killer.start()
        with pytest.raises((GuestFailed, StateError)):
            running.read(LONG)
        killer.join()
