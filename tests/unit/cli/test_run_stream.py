"""Standard input on its way to a command, and keys."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from support.deadline import scaled
from umlab.cli import run_stream
from umlab.cli.run_stream import Left, Pipes, Terminal
from umlab.errors import LabError
from umlab.guest.inside.session import FILE_PIECE


class FakeCommand:
    """A command that takes input when it is told to."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.takes, self.has_all = asyncio.Event(), asyncio.Event()
        self.windows: list[tuple[int, int]] = []

    async def read_output(self) -> bytes:
        await self.has_all.wait()
        return b""

    async def read_errors(self) -> bytes:
        return b""

    async def write(self, data: bytes) -> None:
        await self.takes.wait()
        self.taken.append(data)

    async def end_input(self) -> None:
        self.has_all.set()

    def resize(self, rows: int, columns: int) -> None:
        self.windows.append((rows, columns))

    async def wait(self) -> int:
        return 7


@pytest.fixture
def stdin() -> Iterator[int]:
    """The writing end of a pipe that is our standard input."""
    before = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    yield writing
    os.dup2(before, 0)
    os.close(before)


async def test_input_is_put_together_while_the_command_takes_none(stdin: int) -> None:
    command = FakeCommand()
    data = os.urandom(3 * FILE_PIECE)
    with open(os.devnull, "wb") as output:
        running = asyncio.create_task(Pipes(output.fileno(), "pipe").converse(command))
        writing = asyncio.create_task(asyncio.to_thread(_write, stdin, data))
        # A pipe holds 64 KiB: more is written than that, and then no more.
        await asyncio.sleep(0.2)
        assert not writing.done()
        command.takes.set()
        assert await running == 7
        await writing
    assert b"".join(command.taken) == data
    # The first piece was what was there.
    assert FILE_PIECE <= len(command.taken[1]) < 2 * FILE_PIECE


def _write(fd: int, data: bytes) -> None:
    with open(fd, "wb") as file:
        file.write(data)


async def test_input_that_cannot_be_read_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    before, folder = os.dup(0), os.open("/", os.O_RDONLY)
    os.dup2(folder, 0)
    os.close(folder)
    try:
        with (
            open(os.devnull, "wb") as output,
            pytest.raises(LabError, match="cannot read standard input: Is a"),
        ):
            await Pipes(output.fileno(), "pipe").converse(FakeCommand())
    finally:
        os.dup2(before, 0)
        os.close(before)


async def test_terminal_that_hangs_up_is_left_as_by_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()

    class Talker(FakeCommand):
        async def read_output(self) -> bytes:
            os.close(master)
            return b"on nobody's screen"

    before = os.dup(0)
    os.dup2(terminal, 0)
    monkeypatch.setattr(run_stream, "_type", lambda _command: asyncio.sleep(scaled(60)))
    try:
        with pytest.raises(Left) as left:
            await Terminal(terminal).converse(Talker())
    finally:
        os.dup2(before, 0)
        os.close(before)
        os.close(terminal)
    assert left.value.number == signal.SIGHUP


@pytest.mark.parametrize(
    ("keys", "pause", "leaves"),
    [
        ([b"\x1d\x1d\x1d"], 0.0, True),
        ([b"a\x1d", b"\x1d", b"\x1d"], 0.0, True),
        ([b"\x1d\x1d", b"a\x1d"], 0.0, False),
        ([b"\x1d", b"\x1d", b"\x1d"], 0.6, False),
    ],
)
async def test_three_keys_within_a_second_leave(
    monkeypatch: pytest.MonkeyPatch, keys: list[bytes], pause: float, leaves: bool
) -> None:
    clock = time.monotonic()
    left = list(keys)

    async def read(_size: int) -> bytes:
        nonlocal clock
        clock += pause
        return left.pop(0) if left else b""

    monkeypatch.setattr(run_stream, "_read", read)
    # The event loop goes on with its own.
    monkeypatch.setattr(run_stream, "time", SimpleNamespace(monotonic=lambda: clock))
    command = FakeCommand()
    command.takes.set()
    if leaves:
        with pytest.raises(Left):
            await run_stream._type(command)
    else:
        await run_stream._type(command)
        assert b"".join(command.taken) == b"".join(keys)
