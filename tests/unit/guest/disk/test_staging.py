"""What is half-made goes, whoever makes it, and is told from what somebody still makes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from umlab.guest.disk.staging import abandoned, remove, stage

_KILLED = """
import os, signal, sys
from pathlib import Path
from umlab.guest.disk.staging import stage
with stage(Path(sys.argv[1])) as place:
    (place / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_moved_out_stays_and_the_rest_goes(tmp_path: Path) -> None:
    with stage(tmp_path) as place:
        assert place.stat().st_mode & 0o777 == 0o700
        (place / "made").write_text("whole")
        (place / "left").mkdir()
        (place / "made").rename(tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def make() -> None:
        with stage(tmp_path) as place:
            (place / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make()
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_closed_to_their_owner_go_as_well(tmp_path: Path) -> None:
    with stage(tmp_path) as place:
        (place / "a/b").mkdir(parents=True)
        (place / "a/b/file").write_text("x")
        (place / "a/link").symlink_to(tmp_path)
        (place / "a/b").chmod(0)
        (place / "a").chmod(0o500)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_found_and_what_lives_is_not(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path], check=False)
    assert done.returncode == -signal.SIGKILL
    with stage(tmp_path) as place:
        found = [path.name for path in abandoned(tmp_path)]
        assert len(found) == 1
        assert place.name not in found
    for path in abandoned(tmp_path):
        remove(path)
    assert list(abandoned(tmp_path)) == list(tmp_path.iterdir()) == []


def test_neither_links_nor_other_names_are_taken_for_abandoned(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / ".new-link").symlink_to("own")
    (tmp_path / ".new-file").touch()
    assert list(abandoned(tmp_path)) == []
    assert list(abandoned(tmp_path / "nowhere")) == []
    assert os.path.islink(tmp_path / ".new-link")
