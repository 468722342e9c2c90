"""Sockets with a path: what is replaced, what is left alone, and what is gone in the end."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deadline import scaled
from umlab.errors import SocketInUse, TransportError
from umlab.transports import socketfile
from umlab.transports.socketfile import SocketFile, check_socket_path
from umlab.wire.sockaddr import MAX_SOCKET_PATH

KINDS = [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET]


@pytest.fixture
def path(short_dir: Path) -> Path:
    return short_dir / "sock"


@pytest.fixture
def other(path: Path) -> Iterator[socket.socket]:
    """Yield another process's socket, as far as one can tell: bound, and listening where it can."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(os.fspath(path))
        sock.listen(0)
        yield sock


def leave_dead_socket(path: Path, kind: int) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(os.fspath(path))


@pytest.mark.parametrize("kind", KINDS)
def test_socket_is_served_and_removed(path: Path, kind: int) -> None:
    file = SocketFile(path, kind)
    assert file.path == str(path)
    assert not file.socket.getblocking()
    with socket.socket(socket.AF_UNIX, kind) as client:
        client.connect(os.fspath(path))
    file.close()
    assert not path.exists()
    file.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dead_kind", KINDS)
def test_dead_socket_of_any_kind_is_replaced(path: Path, kind: int, dead_kind: int) -> None:
    leave_dead_socket(path, dead_kind)
    SocketFile(path, kind).close()
    assert not path.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_living_socket_is_left_alone_whatever_its_kind(path: Path, other: socket.socket, kind: int) -> None:
    with pytest.raises(SocketInUse, match=f"the socket {path} has another switch attached to it"):
        SocketFile(path, kind)
    assert path.is_socket()


def test_living_socket_whose_backlog_is_full_is_left_alone(path: Path, other: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as first:
        first.connect(os.fspath(path))
        with pytest.raises(SocketInUse):
            SocketFile(path, socket.SOCK_STREAM)
    assert path.is_socket()


def test_switch_waits_until_another_has_bound_its_socket(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two switches at one dead socket: the second removed what the first had just put there."""
    leave_dead_socket(path, socket.SOCK_STREAM)
    unlink = os.unlink
    seen: list[str] = []

    def unlink_while_another_starts(name: str) -> None:
        folder = os.open(path.parent, os.O_RDONLY)
        with pytest.raises(BlockingIOError) as caught:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(folder)
        seen.append(str(caught.value))
        unlink(name)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", unlink_while_another_starts)
        file = SocketFile(path, socket.SOCK_STREAM)
    assert len(seen) == 1
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(os.fspath(path))
    SocketFile(path.with_name("other"), socket.SOCK_STREAM).close()
    file.close()


def test_stranger_who_locks_the_directory_keeps_nobody_from_starting(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socketfile, "_LOCK_PATIENCE", 0.05)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        SocketFile(path, socket.SOCK_STREAM).close()
    finally:
        os.close(folder)


@pytest.mark.needs_plain_user
def test_directory_that_may_not_be_written_to_is_named(path: Path) -> None:
    leave_dead_socket(path, socket.SOCK_STREAM)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(TransportError, match=f"cannot remove the dead socket {path}: Permission denied"):
            SocketFile(path, socket.SOCK_STREAM)
        with pytest.raises(TransportError, match=f"cannot bind the socket {path}2: Permission denied"):
            SocketFile(f"{path}2", socket.SOCK_STREAM)
    finally:
        path.parent.chmod(0o700)


def test_many_switches_at_one_dead_socket_are_one_switch(path: Path) -> None:
    code = (
        "import socket, sys\n"
        "from umlab.errors import SocketInUse\n"
        "from umlab.transports.socketfile import SocketFile\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "try:\n    file = SocketFile(sys.argv[1], socket.SOCK_STREAM)\n"
        "except SocketInUse:\n    print('in use', flush=True)\n"
        "else:\n    print('mine', flush=True)\n"
        "    sys.stdin.readline()\n    file.close()\n"
    )
    for _ in range(3):
        leave_dead_socket(path, socket.SOCK_STREAM)
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", code, os.fspath(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        try:
            for racer in racers:
                assert racer.stdout is not None
                assert racer.stdout.readline() == "ready\n"
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("go\n")
                racer.stdin.flush()
            verdicts = [racer.stdout.readline().strip() for racer in racers if racer.stdout]
            assert sorted(verdicts) == ["in use", "in use", "in use", "mine"]
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.connect(os.fspath(path))
        finally:
            for racer in racers:
                racer.communicate(timeout=scaled(10))
        assert not path.exists()


@pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("nowhere")])
def test_anything_else_is_left_alone(path: Path, make: object) -> None:
    assert callable(make)
    make(path)
    with pytest.raises(TransportError, match=f"{path} is there already and is no socket"):
        SocketFile(path, socket.SOCK_STREAM)
    assert os.path.lexists(path)


def test_missing_directory_is_named(short_dir: Path) -> None:
    with pytest.raises(TransportError, match=f"cannot bind the socket {short_dir}/no/sock: No such file"):
        SocketFile(short_dir / "no/sock", socket.SOCK_STREAM)


@pytest.mark.parametrize(
    ("call", "reason"),
    [("bind", "cannot bind the socket .*: Permission denied"), ("connect", "cannot reach the socket")],
)
def test_permission_errors_name_the_path(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, reason: str
) -> None:
    leave_dead_socket(path, socket.SOCK_STREAM)

    class Refused(socket.socket):
        def bind(self, address: object) -> None:
            if call == "bind" and address == os.fspath(path):
                raise PermissionError(13, "Permission denied")
            super().bind(address)  # type: ignore[arg-type]

        def connect(self, address: object) -> None:
            if call == "connect":
                raise PermissionError(13, "Permission denied")
            super().connect(address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "socket", Refused)
    with pytest.raises(TransportError, match=reason):
        SocketFile(path, socket.SOCK_STREAM)


def test_dead_socket_that_cannot_be_removed_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    leave_dead_socket(path, socket.SOCK_STREAM)
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(TransportError, match=f"cannot remove the dead socket {path}: Operation not"):
        SocketFile(path, socket.SOCK_STREAM)
    monkeypatch.undo()


def test_dead_socket_that_another_removes_first_is_no_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def too_late(name: str) -> None:
        unlink(name)
        raise FileNotFoundError(name)

    leave_dead_socket(path, socket.SOCK_STREAM)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", too_late)
        file = SocketFile(path, socket.SOCK_STREAM)
    file.close()


def test_path_that_a_stranger_takes_in_the_last_moment_is_in_use(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs other than ours do not wait for the directory."""

    class Late(socket.socket):
        def bind(self, address: object) -> None:
            leave_dead_socket(path, socket.SOCK_STREAM)
            super().bind(address)  # type: ignore[arg-type]

    sockets = iter([Late])
    plain = socket.socket
    monkeypatch.setattr(socket, "socket", lambda *args: next(sockets, plain)(*args))
    with pytest.raises(SocketInUse):
        SocketFile(path, socket.SOCK_STREAM)
    assert path.is_socket()


def test_socket_that_has_taken_our_place_is_not_removed(path: Path) -> None:
    ours = SocketFile(path, socket.SOCK_STREAM)
    path.unlink()
    theirs = SocketFile(path, socket.SOCK_STREAM)
    ours.close()
    assert path.is_socket()
    theirs.close()


def test_socket_that_somebody_removed_is_closed_all_the_same(path: Path) -> None:
    file = SocketFile(path, socket.SOCK_STREAM)
    path.unlink()
    file.close()
    assert file.socket.fileno() == -1


def test_relative_path_is_kept_for_the_kernel_and_removed_after_a_chdir(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_dir)
    leave_dead_socket(Path("sock"), socket.SOCK_STREAM)
    file = SocketFile("sock", socket.SOCK_STREAM)
    assert file.socket.getsockname() == "sock"
    monkeypatch.chdir("/")
    file.close()
    assert list(short_dir.iterdir()) == []


def test_path_has_107_bytes_at_most(short_dir: Path) -> None:
    longest = str(short_dir / ("x" * (MAX_SOCKET_PATH - len(str(short_dir)) - 1)))
    SocketFile(longest, socket.SOCK_STREAM).close()
    with pytest.raises(TransportError, match="has 108 bytes, at most 107 fit; take a shorter one"):
        SocketFile(longest + "x", socket.SOCK_STREAM)
    check_socket_path("ä" * 53)
    with pytest.raises(TransportError, match="has 108 bytes"):
        check_socket_path("ä" * 54)


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_text_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(TransportError, match="is not the path of a socket"):
        SocketFile(text, socket.SOCK_STREAM)
