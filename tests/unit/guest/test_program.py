"""Programs of the host: what they print, how they fail, and that they end with all that they started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.deadline import wait_until
from umlab.errors import LabError
from umlab.guest.program import check_programs, program_path, run_program
from umlab.guest.watch import group_members


def test_lines_come_as_they_are_printed() -> None:
    lines: list[str] = []
    run_program(["sh", "-c", "echo one; echo; echo two >&2"], lines.append)
    assert lines == ["one", "two"]


def test_failure_has_the_last_line() -> None:
    with pytest.raises(LabError, match=r"^sh failed: no room$"):
        run_program(["sh", "-c", "echo working; echo no room; exit 3"])
    with pytest.raises(LabError, match=r"^sh failed: status 3$"):
        run_program(["sh", "-c", "exit 3"])
    with pytest.raises(LabError, match="cannot run /nowhere/x: No such file"):
        run_program(["/nowhere/x"])


def test_what_is_missing_is_told_with_its_packages() -> None:
    check_programs({"sh": "dash"})
    with pytest.raises(LabError, match=r"^there is no umlab-a, umlab-b here; as root: apt-get install one$"):
        check_programs({"sh": "dash", "umlab-a": "one", "umlab-b": "one"})


def test_programs_of_the_administrator_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin")
    assert program_path().split(os.pathsep)[0] == "/usr/bin"
    assert "/usr/sbin" in program_path().split(os.pathsep)
    monkeypatch.delenv("PATH")
    assert "/usr/sbin" in program_path().split(os.pathsep)


def test_interrupted_program_ends_with_its_children(tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupt(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_program(["sh", "-c", "sleep 1000 & echo $!; wait"], interrupt)
    wait_until(lambda: not os.path.exists(f"/proc/{pids[0]}"), 10, "the child has ended")


def test_program_ends_with_its_children_when_we_are_killed() -> None:
    command = ["sh", "-c", "sleep 1000 & echo $$; wait"]
    work = f"run_program({command}, lambda line: print(line, flush=True))"
    text = f"from umlab.guest.program import run_program; {work}"
    with subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE) as runner:
        assert runner.stdout is not None
        group = int(runner.stdout.readline())
        assert len(group_members(group)) == 2
        runner.kill()
    wait_until(lambda: not group_members(group), 10, "the program and its child have ended")
