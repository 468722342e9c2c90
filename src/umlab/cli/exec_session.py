"""One command in one guest of a lab, with our standard streams."""

from __future__ import annotations

import asyncio
from signal import SIGINT, SIGPIPE

from umlab.cli.exit_status import EXIT_SIGNAL
from umlab.cli.passed_signals import PassedSignals
from umlab.cli.run_stream import Left, Pipes, Streams, Terminal, choose_streams
from umlab.client.exec import AsyncExec, ExecOrder
from umlab.errors import CommandTimeout, UmlabError

#: Bytes that are typed at a time, and seconds that each of them takes: a guest's line is no faster.
_TYPED_SIZE, _BYTE_TIME = 1024, 0.025 / 1024
_END_OF_FILE = b"\x04"


def streams_for(terminal: bool | None, *, read_input: bool) -> Streams:
    """Return the streams that fit ours.

    Args:
        terminal: Whether the command has a terminal; ``None`` where ours are one.
        read_input: Let it read our standard input.
    """
    if terminal is None:
        return choose_streams(1, read_input=read_input)
    if not terminal:
        return Pipes(1, "pipe" if read_input else "none")
    fitting = choose_streams(1, read_input=True)
    return fitting if isinstance(fitting, Terminal) else Pipes(1, "tty")


async def run_session(
    lab: str,
    guest: str,
    order: ExecOrder,
    streams: Streams,
    timeout: float | None,  # noqa: ASYNC109
) -> int:
    """Run a command to its end and return its status, 128 + n where signal n has ended it or us.

    Signals are the command's once it has begun, as `PassedSignals` says; one that ends us ends it.

    Args:
        lab: The lab.
        guest: The guest.
        order: The command.
        streams: Our streams.
        timeout: Seconds after which it is killed.

    Raises:
        CommandTimeout: It did not end in time.
        UmlabError: It cannot be run, or its guest or the daemon has ended.
    """
    command: _Command | None = None

    async def converse() -> int:
        nonlocal command
        async with asyncio.timeout(timeout), await AsyncExec.open(lab, guest, order) as running:
            command = _Command(running, streams)
            try:
                return await streams.converse(command)
            finally:
                await command.close()

    def pass_on(name: str) -> bool:
        return command is not None and command.signal(name)

    task, signals = asyncio.ensure_future(converse()), PassedSignals(pass_on)
    with signals.heard(task):
        try:
            return await task
        except asyncio.CancelledError:
            if not signals.ended_by:
                raise
            return EXIT_SIGNAL + signals.ended_by
        except TimeoutError:
            raise CommandTimeout(guest, order.text, timeout or 0) from None
        except Left:
            return EXIT_SIGNAL + SIGINT
        except BrokenPipeError:
            # As it is for a command whose output nobody reads.
            return EXIT_SIGNAL + SIGPIPE


class _Command:
    """A command with its streams apart.

    Args:
        running: The command.
        streams: Who reads them.
    """

    def __init__(self, running: AsyncExec, streams: Streams) -> None:
        self._running = running
        self._is_typed = streams.input == "tty"
        self._failure: BaseException | None = None
        # Each has room for one piece: what is not read holds the command up.
        self._pieces: dict[str, asyncio.Queue[bytes]] = {
            stream: asyncio.Queue(1) for stream in ("stdout", "stderr")
        }
        self._tasks = {asyncio.create_task(self._read())}

    async def read_output(self) -> bytes:
        return await self._next("stdout")

    async def read_errors(self) -> bytes:
        return await self._next("stderr")

    async def write(self, data: bytes) -> None:
        if not self._is_typed:
            await self._running.write(data)
            return
        for start in range(0, len(data), _TYPED_SIZE):
            piece = data[start : start + _TYPED_SIZE]
            await self._running.write(piece)
            await asyncio.sleep(len(piece) * _BYTE_TIME)

    async def end_input(self) -> None:
        if self._is_typed:
            await self._running.write(_END_OF_FILE)
        else:
            await self._running.end_input()

    def signal(self, name: str) -> bool:
        """Send a signal, and say whether the command has begun."""
        if not self._running.begun:
            return False
        self._tasks.add(asyncio.ensure_future(self._running.signal(name)))
        return True

    def resize(self, rows: int, columns: int) -> None:
        self._tasks.add(asyncio.ensure_future(self._running.resize(rows, columns)))

    async def wait(self) -> int:
        status = self._running.status
        assert status is not None
        return status

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _next(self, stream: str) -> bytes:
        data = await self._pieces[stream].get()
        if not data and self._failure is not None:
            raise self._failure
        return data

    async def _read(self) -> None:
        try:
            while (output := await self._running.read()) is not None:
                await self._pieces[output.stream].put(output.data)
        except UmlabError as error:
            self._failure = error
        for pieces in self._pieces.values():
            await pieces.put(b"")
