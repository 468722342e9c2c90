"""Programs that doctor runs: whatever they do, they are gone soon and their words are harmless."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until
from umlab.lab.doctor.child import Outcome, run_briefly


def test_status_and_output_are_returned() -> None:
    assert run_briefly(["sh", "-c", "echo out; echo err >&2; exit 3"]) == Outcome(3, b"out\nerr\n")


def test_program_that_hangs_is_killed_with_its_children(short_dir: Path) -> None:
    begin = time.monotonic()
    outcome = run_briefly(["sh", "-c", f"sleep 1000 & echo $! >{short_dir}/pid; sleep 1000"])
    assert outcome.status is None
    assert time.monotonic() - begin < scaled(2.5)
    child = int((short_dir / "pid").read_text())
    wait_until(lambda: not os.path.exists(f"/proc/{child}") or is_zombie(child), 5, "its child is dead")


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_endless_output_is_not_read() -> None:
    outcome = run_briefly(["yes"])
    assert outcome.status is None
    assert len(outcome.output) == 4096


def test_missing_program_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        run_briefly(["/nonexistent/program"])


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(1, b"first\nlast word\n\n"), "last word"),
        (Outcome(1, b"\x1b[2Jx\xff"), "?[2Jx\\xff"),
        (Outcome(1, b""), "it ended with status 1"),
        (Outcome(None, b""), "it does not end"),
    ],
)
def test_last_word_is_fit_for_a_terminal(outcome: Outcome, text: str) -> None:
    assert outcome.text == text


def test_nothing_is_left_when_output_is_closed_early() -> None:
    outcome = run_briefly(["sh", "-c", "exec >&- 2>&-; sleep 0.05; exit 7"])
    assert outcome == Outcome(7, b"")
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
