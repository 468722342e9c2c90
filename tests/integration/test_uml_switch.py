"""Our ``uml_switch`` where the original has no like: the background, signals, logs, hostile guests."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, FakeGuest, attach_request, attached, frame, mac
from integration.peers.uml_switch import is_socket, listens, program_path, uml_switch
from support.deadline import scaled, wait_until, wait_until_async

pytestmark = [pytest.mark.integration, pytest.mark.any_user]


def owner_of(path: Path) -> int:
    """Return the process that listens on a socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(path))
        pid, _, _ = struct.unpack("=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(pid)


def run_in_background(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run with ``-daemon``; returns when the caller's process ends, its output in files."""
    log, errors = directory / "log", directory / "errors"
    with log.open("w") as out, errors.open("w") as err:
        command = [str(program_path("ours")), *options, "-daemon"]
        done = subprocess.run(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=out, stderr=err, timeout=scaled(20)
        )
    return subprocess.CompletedProcess(command, done.returncode, log.read_text(), errors.read_text())


@contextlib.contextmanager
def ended_at_last(pid: int) -> Iterator[None]:
    """End a process that is nobody's child any more, and wait until it is gone."""
    handle = os.pidfd_open(pid)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
        assert select.select([handle], [], [], scaled(10))[0], "it did not end"
        os.close(handle)


def test_background_switch_is_there_when_the_caller_returns(short_dir: Path) -> None:
    done = run_in_background(short_dir, "-unix", "ctl")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{program_path('ours')} attached to unix socket 'ctl'\n"
    control = short_dir / "ctl"
    pid = owner_of(control)
    with ended_at_last(pid):
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.getsid(pid) == pid
        words = [str(program_path("ours")), "-unix", "ctl", "-daemon"]
        assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"".join(os.fsencode(w) + b"\0" for w in words)
        with attached(control) as first, attached(control) as second:
            first.send(frame(BROADCAST, mac(1)))
            assert second.receive() == frame(BROADCAST, mac(1))
    # A relative path still holds after the change of directory.
    assert not control.exists()
    assert (short_dir / "log").read_text().endswith("Caught signal 15, cleaning up and exiting\n")


def test_background_switch_that_cannot_start_fails_the_caller(short_dir: Path) -> None:
    done = run_in_background(short_dir, "-unix", "none/ctl")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "cannot bind the socket none/ctl: No such file or directory\n"


async def test_second_switch_leaves_the_first_one_alone(short_dir: Path) -> None:
    control = short_dir / "ctl"
    async with uml_switch("ours", ["-unix", str(control)], ready=[control]) as first:
        async with uml_switch("ours", ["-unix", str(control)]) as second:
            assert await second.wait() == 1
        assert second.stderr[0] == f"The control socket '{control}' has another server attached to it"
        with attached(control):
            await first.wait_line("New connection")
    assert not control.exists()


async def test_killed_switch_is_replaced(short_dir: Path) -> None:
    control = short_dir / "ctl"
    options = ["-unix", str(control), str(short_dir / "data")]
    async with uml_switch("ours", options, ready=[control]) as first:
        first.process.kill()
        assert await first.wait() == -signal.SIGKILL
    assert is_socket(control)
    async with uml_switch("ours", options, ready=[control]):
        with attached(control) as guest, attached(control, 0, short_dir / "data") as old:
            old.send(frame(BROADCAST, mac(1)))
            assert guest.receive() == frame(BROADCAST, mac(1))
    assert sorted(path.name for path in short_dir.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_signal_that_was_ignored_stays_ignored(short_dir: Path, number: signal.Signals) -> None:
    """``nohup uml_switch &`` has to survive the terminal."""
    control = short_dir / "ctl"
    name = number.name.removeprefix("SIG")
    words = [
        "/bin/sh",
        "-c",
        f'trap \'\' {name}; exec "$0" "$@"',
        str(program_path("ours")),
        "-unix",
        str(control),
    ]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: listens(control), 15, "it is attached")
            process.send_signal(number)
            with attached(control):
                assert process.poll() is None
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(scaled(10)) == -signal.SIGINT


async def test_older_syntax_serves_all_versions_in_one_network(short_dir: Path) -> None:
    control, data = short_dir / "ctl", short_dir / "data"
    async with uml_switch("ours", ["-unix", str(control), str(data)], ready=[control, data]) as switch:
        assert switch.stdout == [f"{program_path('ours')} attached to unix socket '{control}'"]
        with (
            attached(control, 0, data) as oldest,
            attached(control, 1) as older,
            attached(control, 3) as newest,
        ):
            guests = [oldest, older, newest]
            for number, sender in enumerate(guests):
                sender.send(frame(BROADCAST, mac(number)))
                for receiver in guests:
                    if receiver is not sender:
                        assert receiver.receive() == frame(BROADCAST, mac(number))


def test_default_socket_comes_with_a_hint(short_dir: Path) -> None:
    """The real default is a fixed path that may be in use here, so another one stands in for it."""
    control = short_dir / "uml.ctl"
    code = (
        "import sys; from umlab.compat._switch_options import Options;"
        "from umlab.compat._switch_process import run; run(Options('prog', sys.argv[1]))"
    )
    command = [sys.executable, "-c", code, str(control)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().decode() == f"prog attached to unix socket '{control}'\n"
            assert b"/var/run/uml-utilities/uml_switch.ctl" in process.stderr.readline()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=scaled(10))


async def test_end_of_input_that_is_no_terminal_is_ignored(short_dir: Path) -> None:
    control = short_dir / "ctl"
    read_end, write_end = os.pipe()
    os.close(write_end)
    try:
        async with uml_switch("ours", ["-unix", str(control)], stdin=read_end, ready=[control]) as switch:
            with attached(control) as first, attached(control) as second:
                first.send(frame(BROADCAST, mac(1)))
                assert second.receive() == frame(BROADCAST, mac(1))
            await switch.wait_line("Disconnect", 2)
            assert switch.process.returncode is None
    finally:
        os.close(read_end)


async def test_missing_tap_device_is_explained_and_the_switch_runs(short_dir: Path) -> None:
    control = short_dir / "ctl"
    # Nobody can have the loopback device as a tap.
    async with uml_switch("ours", ["-unix", str(control), "-tap", "lo"], ready=[control]) as switch:
        await switch.wait_line("tap device lo: ")
        assert switch.stdout == [f"{program_path('ours')} attached to unix socket '{control}'"]
        with attached(control) as first, attached(control) as second:
            first.send(frame(BROADCAST, mac(1)))
            assert second.receive() == frame(BROADCAST, mac(1))


async def test_closed_standard_descriptors_are_no_ports(short_dir: Path) -> None:
    """A line for a closed standard output must not end up in a socket that got its number."""
    control = short_dir / "ctl"
    words = ["/bin/sh", "-c", '"$0" "$@" <&- >&- 2>&-', str(program_path("ours")), "-unix", str(control)]
    with subprocess.Popen(words, start_new_session=True) as process:
        try:
            wait_until(lambda: listens(control), 15, "it is attached")
            with attached(control) as first, attached(control) as second:
                first.send(frame(BROADCAST, mac(1)))
                assert second.receive() == frame(BROADCAST, mac(1))
                first.send(frame(BROADCAST, mac(2)))
                assert second.receive() == frame(BROADCAST, mac(2))
                assert first.receive_waiting() == []
        finally:
            os.killpg(process.pid, signal.SIGINT)


async def test_log_that_nobody_reads_stops_nothing(short_dir: Path) -> None:
    """More addresses than a pipe holds lines for: guests come and talk all the same."""
    control = short_dir / "ctl"
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    with subprocess.Popen(
        [str(program_path("ours")), "-unix", str(control)], stdin=subprocess.DEVNULL, stdout=write_end
    ) as process:
        os.close(write_end)
        try:
            wait_until(lambda: listens(control), 15, "it is attached")
            with attached(control) as first, attached(control) as second:
                for number in range(300):
                    first.send(frame(BROADCAST, b"\x02\0\0\0" + number.to_bytes(2, "big")))
                    second.receive()
                with attached(control) as third:
                    third.send(frame(BROADCAST, mac(1)))
                    assert second.receive() == frame(BROADCAST, mac(1))
            # Read at last, the log is complete.
            text = b""
            while text.count(b"New port") < 300:
                assert select.select([read_end], [], [], scaled(10))[0], text[-200:]
                text += os.read(read_end, 65_536)
            assert len(set(re.findall(rb"Addr: (\S+) New", text))) == 300
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(scaled(10))
            os.close(read_end)


async def test_hostile_requests_harm_nobody(short_dir: Path) -> None:
    control = short_dir / "ctl"
    dice = random.Random(3)
    async with uml_switch("ours", ["-unix", str(control)], ready=[control]) as switch:
        with attached(control) as first, attached(control) as second:
            for version in (2, 4, 99, 0xFFFF_FFFF):
                with FakeGuest(control) as guest:
                    guest.stream.sendall(attach_request(version, guest.name))
                    guest.wait_closed()
            for _ in range(50):
                with FakeGuest(control) as guest:
                    guest.stream.sendall(dice.randbytes(dice.randrange(4, 300)))
                    guest.wait_closed()
            first.send(frame(BROADCAST, mac(1)))
            assert second.receive() == frame(BROADCAST, mac(1))
        await switch.wait_line("Request for a version 4294967295 port")
        assert switch.stderr[0] == "Version 2 is not supported"
        assert not any("Traceback" in line for line in switch.stderr)


async def test_connections_that_never_speak_keep_nobody_out(short_dir: Path) -> None:
    control = short_dir / "ctl"
    async with uml_switch("ours", ["-unix", str(control)], ready=[control]) as switch:
        with contextlib.ExitStack() as silent, attached(control) as first:
            for _ in range(500):
                sock = silent.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(control))
            with attached(control) as second:
                first.send(frame(BROADCAST, mac(1)))
                assert second.receive() == frame(BROADCAST, mac(1))
        await switch.wait_line("Disconnect", 2)


async def test_hundred_thousand_addresses_fill_the_table_and_harm_nobody(short_dir: Path) -> None:
    control = short_dir / "ctl"
    async with uml_switch("ours", ["-unix", str(control)], ready=[control]) as switch:
        with attached(control) as flooder, attached(control) as other:
            for number in range(100_000):
                flooder.send(frame(BROADCAST, b"\x02\0" + number.to_bytes(4, "big"), size=14))
                if number % 5 == 0:
                    other.receive_waiting()
            # That the table is full is said, unless it drowned among the addresses: that is said instead.
            full = re.compile(r"65536 addresses are learnt|\d+ events were lost")
            await wait_until_async(lambda: any(map(full.match, switch.stderr)), 20, "the table is full")
            while other.receive_waiting():
                pass
            other.send(frame(BROADCAST, mac(255), b"still here"))
            while b"still here" not in flooder.receive():
                pass


def test_interrupt_from_the_terminal_ends_it(short_dir: Path) -> None:
    """As typed in front: ^C reaches a process that has the terminal for its own."""
    control = short_dir / "ctl"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(program_path("ours"), [str(program_path("ours")), "-unix", str(control)])
    try:
        wait_until(lambda: listens(control), 15, "it is attached")
        os.write(terminal, termios.tcgetattr(terminal)[6][termios.VINTR])
        text = b""
        with contextlib.suppress(OSError):
            while select.select([terminal], [], [], scaled(10))[0]:
                text += os.read(terminal, 4096)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        os.close(terminal)
    assert status == -signal.SIGINT
    assert b"Caught signal 2, cleaning up and exiting" in text
    assert not control.exists()
