"""Who is at the other end: this process, with and without a memory file like a guest's."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from umlab.transports import peer
from umlab.transports.contract import Peer


@pytest.fixture
def files() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def deleted_file(files: ExitStack, size: int) -> int:
    """Open a file that has no name any more and return its inode."""
    fd, path = tempfile.mkstemp()
    files.callback(os.close, fd)
    os.unlink(path)
    os.truncate(fd, size)
    return os.fstat(fd).st_ino


def test_peer_is_the_process_that_connected() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        assert peer.peer_of(ours) == Peer(os.getpid(), os.geteuid(), os.getegid(), None)


def test_peer_of_a_guest_has_its_boot(files: ExitStack) -> None:
    inode = deleted_file(files, 1 << 20)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        assert peer.peer_of(ours).boot == inode


def test_boot_is_the_first_deleted_file_of_a_memorys_size(files: ExitStack) -> None:
    deleted_file(files, 0)
    deleted_file(files, (1 << 20) - 1)
    memory = deleted_file(files, 1 << 26)
    deleted_file(files, 1 << 27)
    assert peer.boot_of(os.getpid()) == memory


@pytest.mark.parametrize("pid", [0, 2**22 + 1])
def test_boot_of_an_invisible_process_is_unknown(pid: int) -> None:
    assert peer.boot_of(pid) is None


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
    boot = peer.boot_of(os.getpid())
    monkeypatch.undo()
    assert gone
    assert boot == second


def test_program_with_very_many_descriptors_is_looked_at_for_a_while_only(files: ExitStack) -> None:
    for _ in range(peer._MAX_DESCRIPTORS):
        files.callback(os.close, os.dup(0))
    deleted_file(files, 1 << 20)
    assert peer.boot_of(os.getpid()) is None
