"""One guest for one command, with a guest that is none: how it ends, and what comes before its end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from support.deadline import wait_until_async
from umlab.cli.run_guest import GuestRun, Outcome
from umlab.cli.run_order import RunOrder
from umlab.cli.run_stream import Left, Pipes
from umlab.errors import GuestFailed, LabError
from umlab.guest.cmdline import GuestSpec
from umlab.guest.console import Console
from umlab.guest.inside.session import Request
from umlab.guest.kernel.store import Kernel


class FakeSession:
    """A command that writes what it is told, and then waits for a signal."""

    def __init__(self, output: list[bytes]) -> None:
        self.number = 1
        self.output, self.signals = output, list[str]()
        self.has_exited = False
        self.status: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def read_output(self) -> bytes:
        if self.output:
            return self.output.pop(0)
        await asyncio.wait([self.status])
        return b""

    async def read_errors(self) -> bytes:
        await asyncio.wait([self.status])
        return b""

    async def wait(self) -> int:
        return await self.status

    def signal(self, name: str) -> None:
        self.signals.append(name)

    def end(self, status: int) -> None:
        self.has_exited = True
        self.status.set_result(status)


class FakeGuest:
    """A guest that runs one command; everything that is asked of it is written down."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.status: int | None = None
        self.agent = SimpleNamespace(open=self._open, run=self._run, release=self._release)
        self.output: list[bytes] = []
        self.session: FakeSession | None = None
        self.ready_error: Exception | None = None
        self.boots = asyncio.Event()
        self.boots.set()

    async def ready(self, _timeout: float) -> None:
        await self.boots.wait()
        if self.ready_error is not None:
            raise self.ready_error

    async def _open(self, request: Request) -> FakeSession:
        self.asked.append(request.script)
        self.session = FakeSession(self.output)
        return self.session

    def _release(self, _session: FakeSession) -> None:
        self.asked.append("release")

    async def _run(self, command: str, _timeout: float) -> None:
        self.asked.append(command)

    async def stop(self, *, term_timeout: float) -> None:
        self.asked.append(f"stop {'softly' if term_timeout else 'at once'}")


@pytest.fixture
async def guest(monkeypatch: pytest.MonkeyPatch) -> FakeGuest:
    guest = FakeGuest()

    async def start(*_: object, **__: object) -> FakeGuest:
        return guest

    monkeypatch.setattr("umlab.cli.run_guest.Guest", SimpleNamespace(start=start))
    return guest


@pytest.fixture
def output() -> Iterator[tuple[int, int]]:
    """A pipe for the command's output: its reading and its writing end."""
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


class Running:
    """A run that has begun."""

    def __init__(
        self, base: Path, guest: FakeGuest, fd: int, *, timeout: float | None = None, last: str | None = None
    ) -> None:
        order = RunOrder(
            GuestSpec("run"), str(base), Kernel("/linux", "6.1", None, "debian"), ("true",), "script", last
        )
        self.guest = guest
        self.console = Console()
        run = GuestRun(order, Pipes(fd, "none"), self.console, timeout)
        self.outcome: asyncio.Task[Outcome] = asyncio.create_task(run.run())

    async def session(self) -> FakeSession:
        """Return the command's session when there is one."""
        await wait_until_async(lambda: self.guest.session, 5, "the command runs")
        assert self.guest.session is not None
        return self.guest.session


async def test_status_and_output_are_the_commands(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    guest.output = [b"one\n", b"\xfftwo"]
    running = Running(tmp_path, guest, output[1])
    running.console.feed(b"Linux\numlab: this kernel has no overlay: \x1b[1m\n")
    (await running.session()).end(3)
    outcome = await running.outcome
    assert (outcome.status, outcome.error, outcome.console) == (3, "", None)
    assert os.read(output[0], 100) == b"one\n\xfftwo"
    assert guest.asked == ["script", "release", "stop at once"]
    assert capfd.readouterr().err == "umlab: this kernel has no overlay: \\x1b[1m\n"


async def test_what_was_written_is_on_the_hosts_disks_before_the_end(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int]
) -> None:
    running = Running(tmp_path, guest, output[1], last="sync")
    (await running.session()).end(0)
    await running.outcome
    assert guest.asked == ["script", "release", "sync", "stop softly"]


@pytest.mark.parametrize(
    ("name", "second"),
    [(name, name) for name in ("INT", "TERM", "HUP", "QUIT")] + [("INT", "TERM"), ("TERM", "QUIT")],
)
async def test_first_signal_is_the_commands_the_second_ends_the_guest(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int], name: str, second: str
) -> None:
    running = Running(tmp_path, guest, output[1], last="sync")
    session = await running.session()
    number, last = (signal.Signals[f"SIG{each}"] for each in (name, second))

    def passed_on(count: int) -> bool:
        return len(session.signals) > count

    for each in (signal.SIGUSR1, signal.SIGUSR1, signal.SIGUSR2, number):
        count = len(session.signals)
        os.kill(os.getpid(), each)
        await wait_until_async(partial(passed_on, count), 5, "the signal is passed on")
    assert session.signals == ["USR1", "USR1", "USR2", name]
    os.kill(os.getpid(), last)
    outcome = await running.outcome
    assert (outcome.status, outcome.error) == (128 + last, f"ended by SIG{second}")
    # Nobody wants to wait for it.
    assert guest.asked == ["script", "release", "stop at once"]


async def test_signal_before_the_command_ends_the_guest(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int]
) -> None:
    guest.boots.clear()
    running = Running(tmp_path, guest, output[1])
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGTERM)
    outcome = await running.outcome
    assert (outcome.status, outcome.boot_seconds) == (128 + signal.SIGTERM, None)
    assert guest.asked == ["stop at once"]


async def test_signal_that_we_ignore_is_nobodys(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int]
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        session = await (running := Running(tmp_path, guest, output[1])).session()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGUSR1)
        await wait_until_async(lambda: session.signals, 5, "another signal is passed on")
        session.end(0)
        assert ((await running.outcome).status, session.signals) == (0, ["USR1"])
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_time_limit_counts_from_the_beginning(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int]
) -> None:
    guest.boots.clear()
    outcome = await Running(tmp_path, guest, output[1], timeout=0.01).outcome
    assert (outcome.status, outcome.error) == (124, "the boot did not end within 0.01 seconds")
    guest.boots.set()
    outcome = await Running(tmp_path, guest, output[1], timeout=0.01, last="sync").outcome
    assert (outcome.status, outcome.error) == (124, "the command did not end within 0.01 seconds")
    assert guest.asked[1:] == ["script", "release", "sync", "stop softly"]


async def test_output_that_nobody_reads_ends_it_as_it_ends_a_command(
    tmp_path: Path, guest: FakeGuest
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    guest.output = [b"y\n"] * 1000
    outcome = await Running(tmp_path, guest, writing).outcome
    os.close(writing)
    assert outcome.status == 128 + signal.SIGPIPE
    assert guest.asked == ["script", "release", "stop at once"]


async def test_user_who_leaves_ends_the_guest(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(*_: object) -> int:
        raise Left

    monkeypatch.setattr(Pipes, "converse", leave)
    outcome = await Running(tmp_path, guest, output[1]).outcome
    assert (outcome.status, outcome.error) == (130, "ended at the terminal")


async def test_output_that_cannot_be_written_is_a_failure(tmp_path: Path, guest: FakeGuest) -> None:
    guest.output = [b"y\n"]
    with open("/dev/full", "wb") as full:
        outcome = await Running(tmp_path, guest, full.fileno()).outcome
    assert outcome.status == 125
    assert outcome.error == "cannot write the command's output: No space left on device"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (GuestFailed("run", -9, "tail"), "the boot failed: it was ended by SIGKILL"),
        (GuestFailed("run", 1, "tail"), "the boot failed: it ended with status 1"),
        (GuestFailed("run", None, "tail"), "the boot failed: it does not answer"),
        (
            GuestFailed("run", -6, "a\n[ 1.0] Kernel panic - not syncing: why\nb"),
            "the boot failed: Kernel panic - not syncing: why",
        ),
        (
            GuestFailed(
                "run",
                -6,
                "umlab: cannot load x\numlab: no disk\n"
                "Kernel panic - not syncing: Attempted to kill init!\nb",
            ),
            "the boot failed: no disk",
        ),
    ],
)
async def test_guest_that_fails_is_told_with_its_console(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int], error: GuestFailed, told: str
) -> None:
    guest.ready_error = error
    outcome = await Running(tmp_path, guest, output[1]).outcome
    assert (outcome.status, outcome.error, outcome.console) == (125, told, error.console_tail)


async def test_guest_of_another_name_is_a_failure(
    tmp_path: Path, guest: FakeGuest, output: tuple[int, int]
) -> None:
    guest.ready_error = LabError("its name was in use")
    outcome = await Running(tmp_path, guest, output[1]).outcome
    assert (outcome.status, outcome.error, outcome.console) == (125, "its name was in use", None)
