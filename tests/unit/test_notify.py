"""The service manager's protocol: its messages are sent, its descriptors are taken, nonsense does nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from umlab._notify import activation_fds, notify, take_listener


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """Yield the socket of a service manager that this process believes in."""
    name = f"{short_dir}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0{name}" if request.param == "abstract" else name)
        sock.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if request.param == "abstract" else name)
        yield sock


def test_message_is_one_datagram(manager: socket.socket) -> None:
    assert notify("READY=1\nSTATUS=serving")
    assert manager.recv(100) == b"READY=1\nSTATUS=serving"


def test_manager_that_does_not_read_delays_nobody(manager: socket.socket) -> None:
    while notify("WATCHDOG=1"):
        pass
    assert manager.recv(100) == b"WATCHDOG=1"
    assert notify("STOPPING=1")


@pytest.mark.parametrize(
    "where", [None, "", "relative", "/gone/notify", "@gone", "/" + "x" * 200, "vsock:2:3"]
)
def test_without_a_manager_nothing_happens(where: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if where is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", where)
    assert not notify("READY=1")


def test_manager_that_died_is_no_error(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"{short_dir}/notify")
    monkeypatch.setenv("NOTIFY_SOCKET", f"{short_dir}/notify")
    assert not notify("READY=1")


ACTIVATED = textwrap.dedent(
    """\
    import os, sys
    from umlab._notify import activation_fds
    os.environ.setdefault("LISTEN_PID", str(os.getpid()))
    fds = activation_fds()
    left = sorted(name for name in os.environ if name.startswith("LISTEN_"))
    inherited = [fd for group in fds.values() for fd in group if os.get_inheritable(fd)]
    print(fds, left, inherited, activation_fds())
    """
)


def activated(short_dir: Path, count: int, **variables: str) -> str:
    """Return what a process prints that was given so many listening sockets from descriptor 3 on."""
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    try:
        # A shell moves the descriptors to their places, since ours have other numbers.
        moves = "".join(f" {3 + index}<&{sock.fileno()}" for index, sock in enumerate(sockets))
        command = ["/bin/bash", "-c", f'exec "$0" -c "$1" {moves}', sys.executable, ACTIVATED]
        done = subprocess.run(
            command,
            env={"PYTHONPATH": os.pathsep.join(sys.path), **variables},
            pass_fds=[sock.fileno() for sock in sockets],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        for sock in sockets:
            sock.close()
    return done.stdout.strip()


def test_descriptors_are_taken_by_name_once_and_closed_on_exec(short_dir: Path) -> None:
    shown = activated(short_dir, 3, LISTEN_FDS="3", LISTEN_FDNAMES="api:data:api")
    assert shown == "{'api': [3, 5], 'data': [4]} [] [] {}"


@pytest.mark.parametrize("names", [{}, {"LISTEN_FDNAMES": ""}, {"LISTEN_FDNAMES": "one"}])
def test_descriptors_without_a_name_each_are_unnamed(short_dir: Path, names: dict[str, str]) -> None:
    assert activated(short_dir, 2, LISTEN_FDS="2", **names) == "{'unknown': [3, 4]} [] [] {}"


@pytest.mark.parametrize("count", ["", "0", "-1", "2x", "٢", "1_0", "1e1", "9" * 5000])
def test_count_that_makes_no_sense_means_no_descriptors(short_dir: Path, count: str) -> None:
    assert activated(short_dir, 2, LISTEN_FDS=count) == "{} [] [] {}"


def test_more_than_are_open_are_not_believed(short_dir: Path) -> None:
    assert activated(short_dir, 1, LISTEN_FDS="999999999").startswith("{'unknown': [3")


@pytest.mark.parametrize("pid", ["", "1", "nonsense"])
def test_descriptors_of_another_process_are_left_alone(short_dir: Path, pid: str) -> None:
    assert activated(short_dir, 1, LISTEN_PID=pid, LISTEN_FDS="1") == "{} [] [] {}"


def test_nothing_is_handed_over_here() -> None:
    assert activation_fds() == {}


PASSED_ON = textwrap.dedent(
    """\
    import os, sys
    from umlab._notify import activation_fds, pass_on, take_listener
    os.environ.setdefault("LISTEN_PID", str(os.getpid()))
    fds = activation_fds()
    sock = take_listener(fds, sys.argv[1])
    print(fds, sock.getsockname() == sys.argv[1], flush=True)
    if len(sys.argv) == 2:
        pass_on(sock)
        os.execv(sys.executable, [*sys.orig_argv, "again"])
    """
)


def test_socket_that_was_taken_is_passed_on_alone_to_the_program_executed_next(short_dir: Path) -> None:
    path = f"{short_dir}/ctl"
    fds = [listening(f"{short_dir}/other"), listening(path)]
    try:
        command = ["/bin/bash", "-c", f'exec "$0" -c "$1" "$2" 3<&{fds[0]} 4<&{fds[1]}']
        done = subprocess.run(
            [*command, sys.executable, PASSED_ON, path],
            env={"PYTHONPATH": os.pathsep.join(sys.path), "LISTEN_FDS": "2"},
            pass_fds=fds,
            capture_output=True,
            text=True,
        )
    finally:
        for fd in fds:
            os.close(fd)
    assert done.stdout.splitlines() == ["{'unknown': [3]} True", "{'unknown': []} True"], done.stderr


def listening(path: str | bytes, kind: int = socket.SOCK_STREAM, *, listen: bool = True) -> int:
    """Return the descriptor of a bound socket."""
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(path)
    if listen and kind != socket.SOCK_DGRAM:
        sock.listen()
    return sock.detach()


def test_listener_is_found_by_its_path_also_through_a_link(short_dir: Path) -> None:
    (short_dir / "run").mkdir()
    (short_dir / "var").symlink_to("run")
    fds = {
        "a": [listening(f"{short_dir}/run/other"), listening(f"{short_dir}/run/ctl")],
        "b": [listening(f"{short_dir}/run/third")],
    }
    before = [fd for group in fds.values() for fd in group]
    try:
        sock = take_listener(fds, f"{short_dir}/var/ctl")
        assert sock is not None
        with socket.socket(socket.AF_UNIX) as guest, sock:
            guest.connect(f"{short_dir}/run/ctl")
            connection, _ = sock.accept()
            connection.close()
            assert not sock.getblocking()
            before.remove(sock.fileno())
        assert [fd for group in fds.values() for fd in group] == before
    finally:
        for fd in before:
            os.close(fd)


def test_what_is_no_listener_at_the_path_is_not_taken(short_dir: Path) -> None:
    path = f"{short_dir}/ctl"
    read, write = os.pipe()
    unnamed = socket.socket(socket.AF_UNIX).detach()
    group = [
        read,
        unnamed,
        listening(f"\0{short_dir}/ctl".encode()),
        listening(f"{short_dir}/datagram", socket.SOCK_DGRAM),
        listening(f"{short_dir}/silent", listen=False),
        listening(path + "2"),
    ]
    try:
        for wanted in (path, f"{short_dir}/datagram", f"{short_dir}/silent"):
            assert take_listener({"all": group}, wanted) is None
        assert len(group) == 6
    finally:
        for fd in (*group, write):
            os.close(fd)
