"""Which guests run directories tell of, whom they are not believed, and which of them may be removed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.kernel_process import kernel_process
from umlab.mconsole import discover as module
from umlab.mconsole.discover import Found, discover, process_roots, usual_roots
from umlab.mconsole.prune import prune

STRANGER = 65534
NO_PID = 2**22 + 1


@pytest.fixture
def held() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run_directory(root: Path, umid: str, pid: int | str | None = NO_PID) -> Path:
    directory = root / umid
    directory.mkdir(parents=True)
    if pid is not None:
        (directory / "pid").write_text(f"{pid}\n")
    return directory


def listen(directory: Path, kind: int = socket.SOCK_DGRAM) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(directory / "mconsole"))
    return sock


def dead(root: Path, umid: str, pid: int | str | None = NO_PID) -> Path:
    directory = run_directory(root, umid, pid)
    listen(directory).close()
    return directory


def only(root: Path) -> Found:
    (found,) = discover([str(root)])
    return found


def test_guests_are_found_in_the_order_of_directories_and_names(short_dir: Path, held: ExitStack) -> None:
    one, two = short_dir / "one", short_dir / "two"
    for root, umid in ((two, "c"), (one, "b"), (one, "a")):
        held.enter_context(listen(run_directory(root, umid, os.getpid())))
    link = short_dir / "link"
    link.symlink_to(one)
    found = discover([f"{one}/", str(two), str(one), str(link), str(short_dir / "none")])
    pid = os.getpid()
    assert found == [
        Found("a", f"{one}/a/mconsole", str(one), pid, "listening"),
        Found("b", f"{one}/b/mconsole", str(one), pid, "listening"),
        Found("c", f"{two}/c/mconsole", str(two), pid, "listening"),
    ]


def test_state_is_told_from_who_holds_the_socket(short_dir: Path, held: ExitStack) -> None:
    dead(short_dir, "dead")
    run_directory(short_dir, "booting", os.getpid())
    (run_directory(short_dir, "file") / "mconsole").touch()
    (run_directory(short_dir, "directory") / "mconsole").mkdir()
    held.enter_context(listen(run_directory(short_dir, "stream"), socket.SOCK_STREAM)).listen()
    target = held.enter_context(listen(run_directory(short_dir, "target", None)))
    (run_directory(short_dir, "link") / "mconsole").symlink_to(target.getsockname())
    states = {each.umid: (each.state, each.pid) for each in discover([str(short_dir)])}
    assert states == {
        "dead": ("dead", None),
        "booting": ("no socket", os.getpid()),
        "file": ("no console", None),
        "directory": ("no console", None),
        "stream": ("no console", None),
        "target": ("listening", None),
        "link": ("no console", None),
    }


def test_socket_of_any_path_is_looked_at(short_dir: Path, held: ExitStack) -> None:
    root = short_dir / ("long" * 20)
    directory = run_directory(root, "guest" * 9)
    with contextlib.chdir(directory), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("mconsole")
        assert only(root).state == "listening"
    assert only(root).state == "dead"


def test_what_is_no_run_directory_is_none(short_dir: Path) -> None:
    (short_dir / "empty").mkdir()
    (short_dir / "mconsole").touch()
    (short_dir / "pid").touch()
    elsewhere = run_directory(short_dir / "empty", "elsewhere")
    (short_dir / "link").symlink_to(elsewhere)
    assert discover([str(short_dir)]) == []
    assert discover([str(short_dir / "pid")]) == []


@pytest.mark.parametrize("text", ["", "x", "0", "-1", "1" * 11, "1 2", "\x1b[2J"])
def test_pid_file_with_nonsense_is_not_believed(text: str, short_dir: Path) -> None:
    run_directory(short_dir, "a", text)
    assert only(short_dir).pid is None


def test_pid_file_that_is_a_trap_holds_nobody_up(short_dir: Path) -> None:
    os.mkfifo(run_directory(short_dir, "fifo", None) / "pid")
    (run_directory(short_dir, "link", None) / "pid").symlink_to("/proc/self/stat")
    assert [each.pid for each in discover([str(short_dir)])] == [None, None]


def test_names_of_a_public_directory_are_bounded(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_MAX_ENTRIES", 3)
    for number in range(3):
        run_directory(short_dir, str(number))
    assert len(discover([str(short_dir)])) == 3
    assert not caplog.records
    run_directory(short_dir, "3")
    assert len(discover([str(short_dir)])) == 3
    assert "more than 3 entries" in caplog.text


@pytest.mark.needs_root
def test_what_another_user_owns_is_named_and_not_touched(short_dir: Path, held: ExitStack) -> None:
    held.enter_context(listen(run_directory(short_dir, "directory", os.getpid())))
    os.chown(short_dir / "directory", STRANGER, STRANGER)
    held.enter_context(listen(run_directory(short_dir, "socket")))
    os.chown(short_dir / "socket/mconsole", STRANGER, STRANGER)
    os.chown(dead(short_dir, "dead"), STRANGER, STRANGER)
    found = discover([str(short_dir)])
    # A pid file of another user that names our process is not believed.
    assert [(each.umid, each.state, each.pid) for each in found] == [
        ("dead", "another user's", None),
        ("directory", "another user's", None),
        ("socket", "another user's", None),
    ]
    assert [prune(each) for each in found] == ["another user's"] * 3
    assert (short_dir / "dead/mconsole").is_socket()


@pytest.mark.needs_root
def test_another_users_link_is_not_followed(short_dir: Path) -> None:
    dead(short_dir / "home", "a")
    link = short_dir / "link"
    link.symlink_to(short_dir / "home")
    assert len(discover([str(link)])) == 1
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    assert discover([str(link)]) == []


@pytest.mark.integration
@pytest.mark.needs_plain_user
def test_own_directory_that_keeps_us_out_is_shown(short_dir: Path, held: ExitStack) -> None:
    held.enter_context(listen(run_directory(short_dir, "closed")))
    held.enter_context(listen(run_directory(short_dir, "socket")))
    held.enter_context(listen(run_directory(short_dir, "unsearchable")))
    for name, mode in (("closed", 0), ("socket/mconsole", 0), ("unsearchable", 0o400)):
        (short_dir / name).chmod(mode)
    assert [each.state for each in discover([str(short_dir)])] == ["no access"] * 2
    for name in ("closed", "unsearchable"):
        (short_dir / name).chmod(0o700)


def test_usual_directories_are_those_of_the_original_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    assert usual_roots() == ["/home/x/.uml", "/tmp/uml"]
    monkeypatch.delenv("HOME")
    assert usual_roots() == ["/tmp/uml"]


def test_running_kernels_tell_their_directories(short_dir: Path) -> None:
    with (
        kernel_process(f"uml_dir={short_dir}/told/", "umid=a"),
        kernel_process("uml_dir=relative", "umid=b", cwd=short_dir),
        kernel_process("umid=c", env={"HOME": f"{short_dir}/home"}),
        kernel_process("uml_dir=~/own", env={"HOME": f"{short_dir}/home"}),
        kernel_process("mem=64M", env={"HOME": f"{short_dir}/other"}),
    ):
        roots = [root for root in process_roots() if root.startswith(str(short_dir))]
    names = ["home/.uml", "home/own", "relative", "told"]
    assert roots == [str(short_dir / name) for name in names]
    assert not any(root.startswith(str(short_dir)) for root in process_roots())


def test_words_of_other_programs_are_no_directories(short_dir: Path) -> None:
    command = [sys.executable, "-c", "input(1)", f"uml_dir={short_dir}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.read(1)
        assert str(short_dir) not in process_roots()
        running.communicate(b"\n")


def test_dead_guests_directory_is_removed(short_dir: Path) -> None:
    dead(short_dir, "a")
    # Its pid has become another program's.
    dead(short_dir, "b", os.getpid())
    dead(short_dir, "c", None)
    assert [prune(each) for each in discover([str(short_dir)])] == [None] * 3
    assert list(short_dir.iterdir()) == []


def test_what_is_not_surely_dead_stays(short_dir: Path, held: ExitStack) -> None:
    held.enter_context(listen(run_directory(short_dir, "a-lives")))
    run_directory(short_dir, "b-boots")
    (dead(short_dir, "c-files") / "disk.cow").touch()
    lock = os.open(dead(short_dir, "d-locked"), os.O_RDONLY)
    held.callback(os.close, lock)
    fcntl.flock(lock, fcntl.LOCK_EX)
    with kernel_process() as pid:
        dead(short_dir, "e-kernel", pid)
        found = discover([str(short_dir)])
        before = sorted(short_dir.rglob("*"))
        reasons = [prune(each) for each in found]
    assert reasons == [
        "listening",
        "no socket",
        "it has other files, such as disk.cow",
        "somebody has locked it",
        f"process {pid}, which it names, may be its kernel",
    ]
    assert sorted(short_dir.rglob("*")) == before


def test_guest_that_starts_after_it_was_found_dead_stays(short_dir: Path, held: ExitStack) -> None:
    directory = dead(short_dir, "a")
    (found,) = discover([str(short_dir)])
    (directory / "mconsole").unlink()
    held.enter_context(listen(directory))
    assert prune(found) == "listening"
    assert only(short_dir).state == "listening"


def test_directory_that_is_gone_or_became_a_link_is_left_alone(short_dir: Path) -> None:
    directory = dead(short_dir / "root", "a")
    (found,) = discover([str(short_dir / "root")])
    directory.rename(short_dir / "moved")
    assert prune(found) == "it is gone"
    directory.symlink_to(short_dir / "moved")
    assert prune(found) == "Not a directory"
    assert (short_dir / "moved/mconsole").is_socket()
