"""Which boot of a guest a process is, seen on this process with files like a guest's memory."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.deadline import wait_until
from umlab import _boot
from umlab._boot import Boot, boot_of


@pytest.fixture
def files() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def deleted_file(files: ExitStack, size: int, name: str = "vm_file-AbC123") -> int:
    """Open a file that has no name any more and return its inode."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, name)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        files.callback(os.close, fd)
        os.unlink(path)
    os.truncate(fd, size)
    return os.fstat(fd).st_ino


def test_boot_is_the_first_deleted_file_of_a_memorys_size(files: ExitStack) -> None:
    deleted_file(files, 0)
    deleted_file(files, (1 << 20) - 1)
    memory = deleted_file(files, 1 << 26)
    deleted_file(files, 1 << 27)
    boot = boot_of(os.getpid())
    assert boot is not None
    assert boot.inode == memory


def test_other_files_without_a_name_are_no_memory(files: ExitStack) -> None:
    for name in ("log", "vm_file-AbC1234", "#12a"):
        deleted_file(files, 1 << 26, name)
    shared = os.memfd_create("vm_file-AbC123")
    files.callback(os.close, shared)
    os.truncate(shared, 1 << 26)
    assert boot_of(os.getpid()) is None
    # A file that never had a name, as the kernel's is where the file system has such.
    with tempfile.TemporaryFile() as memory:
        memory.truncate(1 << 26)
        boot = boot_of(os.getpid())
        assert boot is not None
        assert boot.inode == os.fstat(memory.fileno()).st_ino


def test_log_on_standard_output_is_no_memory() -> None:
    script = "print(__import__('umlab._boot')._boot.boot_of(__import__('os').getpid()), file=sys.stderr)"
    with tempfile.TemporaryFile() as log:
        log.truncate(1 << 20)
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; {script}"], stdin=log, stdout=log, stderr=subprocess.PIPE
        )
    assert done.stderr == b"None\n"


@pytest.mark.parametrize("pid", [0, 2**22 + 1])
def test_boot_of_an_invisible_process_is_unknown(pid: int) -> None:
    assert boot_of(pid) is None


def test_descriptor_that_is_closed_meanwhile_is_passed_over(
    files: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = deleted_file(files, 1 << 20), deleted_file(files, 1 << 20)
    stat = os.stat
    gone: list[str] = []

    def stat_once_gone(path: str) -> os.stat_result:
        status = stat(path)
        if status.st_ino == first:
            gone.append(path)
            raise FileNotFoundError(path)
        return status

    monkeypatch.setattr(os, "stat", stat_once_gone)
    boot = boot_of(os.getpid())
    monkeypatch.undo()
    assert gone
    assert boot is not None
    assert boot.inode == second


def test_program_with_very_many_descriptors_is_looked_at_for_a_while_only(files: ExitStack) -> None:
    for _ in range(_boot._MAX_DESCRIPTORS):
        files.callback(os.close, os.dup(0))
    deleted_file(files, 1 << 20)
    assert boot_of(os.getpid()) is None


def test_file_that_gets_the_number_of_an_older_one_is_another_boot(tmp_path: Path) -> None:
    """On ext4 a new file has the inode number of the one that was deleted before it."""

    def boot_with_memory() -> Boot | None:
        with ExitStack() as stack:
            fd = os.open(tmp_path / "vm_file-AbC123", os.O_RDWR | os.O_CREAT)
            stack.callback(os.close, fd)
            os.unlink(tmp_path / "vm_file-AbC123")
            os.truncate(fd, 1 << 20)
            return boot_of(os.getpid())

    def file_system_ns() -> int:
        (tmp_path / "tick").touch()
        return (tmp_path / "tick").stat().st_mtime_ns

    first = boot_with_memory()
    begin = file_system_ns()
    # A kernel boots many times slower than this clock ticks.
    wait_until(lambda: file_system_ns() > begin, 5, "a tick of the file system's clock")
    second = boot_with_memory()
    assert first is not None
    assert second is not None
    assert first != second


def test_birth_is_unknown_where_the_c_library_cannot_say(
    files: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = deleted_file(files, 1 << 20)
    monkeypatch.setattr("ctypes.CDLL", lambda name: object())
    assert boot_of(os.getpid()) == Boot(memory, 0)
