"""The watched process group, with shells in the place of a kernel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until
from umlab.guest.watch import WatchedGroup, group_members

#: A main process with a child that ignores everything that can be ignored.
FAMILY = "(trap '' TERM INT HUP; while :; do sleep 0.05; done) & echo $! >child; wait; {then}"


class Family:
    """A group whose end is waited for in the test's thread."""

    def __init__(self, script: str, directory: Path) -> None:
        self.ended = threading.Event()
        self.status: int | None = None
        self.null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        self.group = WatchedGroup(
            ["/bin/sh", "-c", script],
            cwd=str(directory),
            env=dict(os.environ),
            output=self.null,
            on_end=self.take_end,
        )

    def take_end(self, status: int) -> None:
        self.status = status
        self.ended.set()

    def wait(self) -> int | None:
        assert self.ended.wait(scaled(20))
        assert self.group.join(scaled(5))
        return self.status


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], tuple[Family, int]]]:
    families: list[Family] = []

    def start(script: str) -> tuple[Family, int]:
        family = Family(script, tmp_path)
        families.append(family)
        return family, family.group.start()

    yield start
    for family in families:
        family.group.kill()
        family.wait()
        os.close(family.null)


def started_child(directory: Path) -> int:
    path = directory / "child"
    return int(wait_until(lambda: path.exists() and path.read_text().strip(), 10, "the child is there"))


Start = Callable[[str], tuple[Family, int]]


def test_child_leads_its_own_session_and_group(start: Start) -> None:
    _, pid = start("while :; do sleep 1; done")
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert pid in group_members(pid)


def test_main_process_is_killed_its_children_follow(start: Start, tmp_path: Path) -> None:
    family, pid = start(FAMILY.format(then=""))
    started_child(tmp_path)
    os.kill(pid, signal.SIGKILL)
    assert family.wait() == -signal.SIGKILL
    assert group_members(pid) == []


def test_main_process_exits_its_children_are_killed(start: Start, tmp_path: Path) -> None:
    family, pid = start("(while :; do sleep 0.05; done) & echo $! >child; exit 7")
    assert family.wait() == 7
    assert group_members(pid) == []


def test_signal_reaches_the_main_process_only(start: Start, tmp_path: Path) -> None:
    family, _ = start(
        "trap 'exit 9' TERM; (trap 'echo >hit' TERM; sleep 60; sleep 60) & echo $! >child; wait"
    )
    started_child(tmp_path)
    family.group.signal(signal.SIGTERM)
    assert family.wait() == 9
    assert not (tmp_path / "hit").exists()


def test_stopped_group_is_killed(start: Start, tmp_path: Path) -> None:
    family, pid = start(FAMILY.format(then=""))
    started_child(tmp_path)
    os.killpg(pid, signal.SIGSTOP)
    family.group.kill()
    assert family.wait() == -signal.SIGKILL


def test_after_the_end_no_signal_is_sent(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    family, _ = start("exit 0")
    assert family.wait() == 0

    def forbidden(pid: int, number: int) -> None:
        pytest.fail(f"signal {number} to {pid}, which may be another's by now")

    monkeypatch.setattr(os, "kill", forbidden)
    monkeypatch.setattr(os, "killpg", forbidden)
    family.group.signal(signal.SIGTERM)
    family.group.kill()


def test_missing_program_is_reported(tmp_path: Path) -> None:
    group = WatchedGroup(
        ["/no/such/program"], cwd=str(tmp_path), env={}, output=2, on_end=lambda status: pytest.fail("ended")
    )
    with pytest.raises(FileNotFoundError):
        group.start()
    assert group.join(scaled(5))


def test_owner_is_killed_the_group_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=tmp_path, stdout=subprocess.PIPE, text=True, pass_fds=()
    )
    assert owner.stdout is not None
    try:
        pid = int(owner.stdout.readline())
        child = started_child(tmp_path)
        assert {pid, child} <= set(group_members(pid))
    finally:
        owner.kill()
        owner.wait()
        owner.stdout.close()
    wait_until(lambda: not group_members(pid), 10, "the group is killed")


#: More threads than one, as every owner has: each one's end is the end of a parent for the kernel.
OWNER = textwrap.dedent(
    f"""
    import os, threading, time
    from umlab.guest.watch import WatchedGroup
    for _ in range(3):
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    group = WatchedGroup(
        ["/bin/sh", "-c", {FAMILY.format(then="")!r}],
        cwd=".", env=dict(os.environ), output=2, on_end=lambda status: None,
    )
    print(group.start(), flush=True)
    time.sleep(1000)
    """
)
