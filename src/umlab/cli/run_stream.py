"""A command in a guest and our standard streams: pipes and files, or a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import stat
import termios
import time
import tty
from collections.abc import Awaitable, Callable, Iterator
from typing import Protocol

from umlab._readable import readable
from umlab._tasks import until_ended
from umlab.cli.pipe import PipeWriter
from umlab.errors import LabError
from umlab.guest.inside.session import FILE_PIECE, Input

#: Bytes that are typed at a time, and seconds that each of them takes: a guest's line is no faster.
_TYPED_SIZE, _BYTE_TIME = 1024, 0.025 / 1024
#: What ends the guest where every key is the command's: this one, so often within a second.
_LEAVE_KEY, _LEAVE_COUNT = 0x1D, 3


class Left(Exception):
    """The user has left his terminal, and so ended the guest.

    Args:
        number: The signal that a command would have had from that.
    """

    def __init__(self, number: signal.Signals = signal.SIGINT) -> None:
        super().__init__()
        self.number = number


class Command(Protocol):
    """A command that runs, such as a `umlab.guest.inside.session.Session`, whose methods these are."""

    async def read_output(self) -> bytes:
        """Return what it writes to its output or terminal next, empty at the end."""

    async def read_errors(self) -> bytes:
        """Return what it writes to its errors next, empty at the end."""

    async def write(self, data: bytes) -> None:
        """Give it input."""

    async def end_input(self) -> None:
        """End its input."""

    def resize(self, rows: int, columns: int) -> None:
        """Tell it how large its terminal is."""

    async def wait(self) -> int:
        """Wait for its end and return its status."""


class Streams(Protocol):
    """How a command reads and writes."""

    @property
    def input(self) -> Input:
        """Where its input comes from."""

    def window(self) -> tuple[int, int]:
        """Return the size of its terminal, rows and columns."""

    async def converse(self, command: Command) -> int:
        """Pass everything on until the command has ended and return its status.

        Raises:
            BrokenPipeError: Nobody reads what it writes.
            Left: The user leaves.
            UmlabError: The guest has gone, or one of ours can neither be read nor written.
        """


def choose_streams(output: int, *, read_input: bool) -> Streams:
    """Return the streams that fit ours.

    Args:
        output: The descriptor for the command's standard output.
        read_input: Let it read our standard input.
    """
    if not read_input or _is_null(0):
        return Pipes(output, "none")
    if os.isatty(0) and os.isatty(output):
        return Terminal(output)
    return Pipes(output, "pipe")


class Pipes:
    """Input, output and errors apart.

    Args:
        output: The descriptor for standard output.
        input: Where its input comes from.
    """

    def __init__(self, output: int, input: Input) -> None:
        self.input: Input = input
        self._output = output

    def window(self) -> tuple[int, int]:
        """Return the size of a terminal; there is none."""
        return 24, 80

    async def converse(self, command: Command) -> int:
        """Pass everything on until the command has ended and return its status."""
        with _writer(self._output) as output, _writer(2) as errors:
            feed = _Feed(command)
            await until_ended(
                [_copy(command.read_output, output), _copy(command.read_errors, errors)],
                [feed.read(), feed.write()] if self.input != "none" else [],
            )
        return await command.wait()


class Terminal:
    """Our terminal is the command's for as long as it runs.

    Args:
        output: The descriptor of the terminal for what it shows.
    """

    input: Input = "tty"

    def __init__(self, output: int) -> None:
        self._output = output

    def window(self) -> tuple[int, int]:
        """Return the window's size."""
        columns, rows = os.get_terminal_size(self._output)
        # A window without a size is one that nobody has told.
        return (rows, columns) if rows and columns else (24, 80)

    async def converse(self, command: Command) -> int:
        """Pass everything on until the command has ended and return its status."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, lambda: command.resize(*self.window()))
        try:
            with _raw_mode(), _writer(self._output) as output:
                await until_ended([_copy(command.read_output, output)], [_type(command)])
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)
        return await command.wait()


@contextlib.contextmanager
def _writer(fd: int) -> Iterator[Callable[[bytes], Awaitable[None]]]:
    """Yield what writes to a descriptor; of a terminal's, only what acts on the screen alone."""
    # A reader that leaves is noticed when something is written, as the command itself would.
    pipe = PipeWriter(fd, lambda: None)
    if not os.isatty(fd):
        try:
            yield pipe.write
        finally:
            pipe.close()
        return
    from umlab.console.passage import Passage

    passage, is_used = Passage(), False

    async def show(data: bytes) -> None:
        nonlocal is_used
        is_used = True
        try:
            await pipe.write(passage.feed(data))
        except OSError as error:
            if error.errno == errno.EIO:
                # It has hung up.
                raise Left(signal.SIGHUP) from None
            raise

    try:
        yield show
    finally:
        pipe.close()
        if is_used:
            with contextlib.suppress(OSError):
                os.write(fd, passage.leave())


async def _copy(read: Callable[[], Awaitable[bytes]], write: Callable[[bytes], Awaitable[None]]) -> None:
    while data := await read():
        try:
            await write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise LabError(f"cannot write the command's output: {error.strerror}") from None


class _Feed:
    """Standard input on its way to a command, as fast as that takes it.

    A piece costs the guest as much time whether it is long or short, and a pipe has only short ones: so the
    next one is put together while the guest takes one.

    Args:
        command: The command.
    """

    def __init__(self, command: Command) -> None:
        self._command = command
        self._piece = bytearray()
        self._has_ended = False
        self._changed = asyncio.Condition()

    async def read(self) -> None:
        """Read to the end, one piece ahead."""
        while data := await _read(FILE_PIECE):
            async with self._changed:
                self._piece += data
                self._changed.notify_all()
                await self._changed.wait_for(lambda: len(self._piece) < FILE_PIECE)
        async with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    async def write(self) -> None:
        """Give the command all that is read."""
        while piece := await self._next():
            await self._command.write(piece)
        await self._command.end_input()

    async def _next(self) -> bytes:
        async with self._changed:
            await self._changed.wait_for(lambda: self._piece or self._has_ended)
            piece = bytes(self._piece)
            self._piece.clear()
            self._changed.notify_all()
        return piece


async def _type(command: Command) -> None:
    """Type what the user types; raises Left when he leaves."""
    pressed: list[float] = []
    while data := await _read(_TYPED_SIZE):
        for key in data:
            pressed = [*pressed, time.monotonic()][-_LEAVE_COUNT:] if key == _LEAVE_KEY else []
        if len(pressed) == _LEAVE_COUNT and pressed[-1] - pressed[0] < 1:
            raise Left
        await command.write(data)
        await asyncio.sleep(len(data) * _BYTE_TIME)


async def _read(size: int) -> bytes:
    """Return what standard input has, without making it non-blocking: others may share it."""
    # A file cannot be waited for, and has everything at once.
    with contextlib.suppress(PermissionError):
        await readable(0)
    try:
        return os.read(0, size)
    except OSError as error:
        raise LabError(f"cannot read standard input: {error.strerror}") from None


def _is_null(fd: int) -> bool:
    status = os.fstat(fd)
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    """Let every key go to the guest, and put the terminal back whatever happens.

    What is typed before and after is nobody's loss.
    """
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0, termios.TCSADRAIN)
        yield
    finally:
        # A terminal that has hung up has no modes.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(0, termios.TCSADRAIN, before)
