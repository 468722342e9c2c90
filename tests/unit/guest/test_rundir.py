"""The run directory: whose it is, what a dead owner left, and what a hostile guest may have put there."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from umlab.errors import LabError
from umlab.guest.rundir import RunDirectory


@pytest.fixture
def run(short_dir: Path) -> Iterator[RunDirectory]:
    made = RunDirectory(str(short_dir), "left")
    yield made
    made.remove()


def write_pid(run_path: Path, umid: str, text: str) -> None:
    (run_path / umid).mkdir()
    (run_path / umid / "pid").write_text(text)


def test_directory_is_private_and_names_the_console_socket(run: RunDirectory, short_dir: Path) -> None:
    assert run.path == f"{short_dir}/left"
    assert run.mconsole_path == f"{short_dir}/left/left/mconsole"
    for path in (run.path, run.memory_path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700


def test_remove_leaves_nothing_and_may_be_repeated(short_dir: Path) -> None:
    run = RunDirectory(str(short_dir), "left")
    write_pid(Path(run.path), "left", "1")
    Path(run.memory_path, "file").touch()
    run.remove()
    run.remove()
    assert os.listdir(short_dir) == []
    assert not os.path.exists(run.memory_path)


def test_memory_file_goes_where_the_kernel_would_put_it(
    short_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    run = RunDirectory(str(short_dir), "left")
    try:
        assert Path(run.memory_path).parent == tmp_path
    finally:
        run.remove()


def test_missing_place_for_the_memory_file_is_named(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/no/such/place")
    with pytest.raises(LabError, match="/no/such/place"):
        RunDirectory(str(short_dir), "left")
    assert os.listdir(short_dir) == []


def test_too_long_console_socket_is_refused_and_named(short_dir: Path) -> None:
    base = short_dir / ("x" * (107 - len(str(short_dir)) - len("//left/left/mconsole")))
    base.mkdir()
    RunDirectory(str(base), "left").remove()
    with pytest.raises(LabError, match=r"lefty/lefty/mconsole would have 109 bytes.*107"):
        RunDirectory(str(base), "lefty")


def test_missing_base_is_named(short_dir: Path) -> None:
    with pytest.raises(LabError, match="gone"):
        RunDirectory(str(short_dir / "gone"), "left")


def test_name_in_use_is_refused(run: RunDirectory, short_dir: Path) -> None:
    with pytest.raises(LabError, match="left runs already"):
        RunDirectory(str(short_dir), "left")
    assert os.path.isdir(run.path)


def test_rest_of_a_dead_owner_is_replaced(short_dir: Path) -> None:
    (short_dir / "left").mkdir()
    write_pid(short_dir / "left", "left", "1")
    (short_dir / "left" / "root.cpio").touch()
    (short_dir / "left" / "link").symlink_to(short_dir)
    run = RunDirectory(str(short_dir), "left")
    try:
        assert os.listdir(run.path) == []
        assert short_dir.exists()
    finally:
        run.remove()


def test_living_guest_of_a_dead_owner_is_left_alone(short_dir: Path) -> None:
    path = short_dir / "left"
    path.mkdir()
    command = [
        sys.executable,
        "-c",
        "import sys; print('up', flush=True); sys.stdin.read()",
        f"uml_dir={path}/",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as guest:
        assert guest.stdout is not None
        guest.stdout.readline()
        write_pid(path, "left", f"{guest.pid}\n")
        with pytest.raises(LabError, match=f"process group {guest.pid}"):
            RunDirectory(str(short_dir), "left")
    assert (path / "left/pid").exists()


def test_link_in_the_place_of_the_directory_is_refused(short_dir: Path) -> None:
    (short_dir / "target").mkdir()
    (short_dir / "left").symlink_to(short_dir / "target")
    with pytest.raises(LabError, match="left"):
        RunDirectory(str(short_dir), "left")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_somebody_else_is_refused(short_dir: Path) -> None:
    (short_dir / "left").mkdir()
    os.chown(short_dir / "left", 12345, 12345)
    with pytest.raises(LabError, match="12345"):
        RunDirectory(str(short_dir), "left")


def test_umid_is_found_by_the_kernels_pid(run: RunDirectory) -> None:
    assert run.umid_of(4711) is None
    write_pid(Path(run.path), "left", "1\n")
    write_pid(Path(run.path), "xYz123", "4711\n")
    assert run.umid_of(4711) == "xYz123"


@pytest.mark.parametrize("content", ["", "x", "-1", "9" * 40, "47 11"])
def test_pid_file_of_nonsense_is_ignored(run: RunDirectory, content: str) -> None:
    write_pid(Path(run.path), "left", content)
    assert run.umid_of(4711) is None


def test_pid_file_that_would_block_or_lead_elsewhere_is_ignored(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("4711")
    for name in ("fifo", "link"):
        os.mkdir(os.path.join(run.path, name))
    os.mkfifo(os.path.join(run.path, "fifo", "pid"))
    os.symlink(tmp_path / "pid", os.path.join(run.path, "link", "pid"))
    assert run.umid_of(4711) is None


def test_what_resists_removal_is_no_error(short_dir: Path) -> None:
    run = RunDirectory(str(short_dir), "left")
    locked = Path(run.path, "locked")
    locked.mkdir()
    (locked / "file").touch()
    locked.chmod(0o500)
    run.remove()
    if locked.exists():
        locked.chmod(0o700)
        shutil.rmtree(run.path)


def test_directory_that_was_let_go_is_held_by_whoever_has_the_lock(short_dir: Path) -> None:
    run = RunDirectory(str(short_dir), "left")
    lock = os.dup(run.lock)
    run.let_go()
    run.let_go()
    assert os.path.isdir(run.memory_path)
    with pytest.raises(LabError, match="left runs already"):
        RunDirectory(str(short_dir), "left")
    again = RunDirectory.adopt(str(short_dir), "left", run.memory_path, lock)
    assert (again.path, again.mconsole_path, again.lock) == (run.path, run.mconsole_path, lock)
    again.remove()
    again.remove()
    assert list(short_dir.iterdir()) == []
    assert not os.path.exists(run.memory_path)
    # What was let go removes nothing of the next one's.
    following = RunDirectory(str(short_dir), "left")
    run.remove()
    assert os.path.isdir(following.path)
    following.remove()


def test_adopted_name_has_to_be_one() -> None:
    with pytest.raises(LabError, match="guest name"):
        RunDirectory.adopt("/x", "../y", "/z", -1)


def test_lock_that_is_only_looked_at_is_waited_for(run: RunDirectory, short_dir: Path) -> None:
    """As by a sweep, or a keeper that has just been told to let go."""
    timer = threading.Timer(0.1, run.let_go)
    timer.start()
    following = RunDirectory(str(short_dir), "left")
    timer.join()
    following.remove()
