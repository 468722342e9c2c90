"""Locks on disk images: as kernels set them, seen from another process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from umlab.errors import LabError
from umlab.guest.disk.file_lock import lock_file, user_of

#: Locks a file as a kernel does, says so, and lives until its input ends.
_HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "r+b")
fcntl.lockf(file, fcntl.LOCK_NB | (fcntl.LOCK_EX if sys.argv[2] == "write" else fcntl.LOCK_SH))
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path, how: str, *words: str) -> Iterator[int]:
    """Have another process lock a file, and yield its number."""
    command = [sys.executable, "-c", _HOLDER, str(path), how, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process.pid
        process.communicate()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """Yield a file, and a descriptor of it."""
    path = tmp_path / "image"
    path.write_bytes(b"x")
    fd = os.open(path, os.O_RDWR)
    yield path, fd
    os.close(fd)


@pytest.mark.parametrize(
    ("how", "exclusive", "refused"),
    [("write", True, True), ("write", False, True), ("read", True, True), ("read", False, False)],
)
def test_lock_of_a_guest_keeps_us_out(
    file: tuple[Path, int], how: str, exclusive: bool, refused: bool
) -> None:
    path, fd = file
    with held(path, how, "umid=left") as pid:
        assert user_of(fd) == f"guest left, process {pid}"
        assert (user_of(fd, writing=True) is None) is (how == "read")
        if refused:
            with pytest.raises(LabError, match=f"image is in use by guest left, process {pid}; stop that"):
                lock_file(fd, str(path), exclusive=exclusive)
        else:
            lock_file(fd, str(path), exclusive=exclusive)
    assert user_of(fd) is None
    lock_file(fd, str(path), exclusive=exclusive)


def test_our_lock_keeps_a_guest_out_also_when_another_descriptor_is_closed(file: tuple[Path, int]) -> None:
    path, fd = file
    lock_file(fd, str(path), exclusive=False)
    with path.open("rb"):
        pass
    done = subprocess.run(
        [sys.executable, "-c", _HOLDER, str(path), "write"], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert done.returncode == 1
    assert b"BlockingIOError" in done.stderr
    with held(path, "read") as pid:
        assert user_of(fd) == f"process {pid}"


def test_other_lock_like_ours_names_nobody(file: tuple[Path, int]) -> None:
    path, fd = file
    other = os.open(path, os.O_RDWR)
    try:
        lock_file(other, str(path), exclusive=True)
        with pytest.raises(LabError, match="in use by another program"):
            lock_file(fd, str(path), exclusive=False)
    finally:
        os.close(other)
    lock_file(fd, str(path), exclusive=True)
