"""The guest's end of its agent's lines, which says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from support.deadline import scaled, wait_until_async
from umlab.guest.inside.agent import Agent, ExecResult
from umlab.guest.inside.agent_line import SESSIONS
from umlab.guest.inside.session import LINE_PIECE, Request, Session

#: What an agent greets with: all goes over the lines, or through the folder in common,
LINE, FILE = "umlab-agent 2 line 0 7\n", "umlab-agent 2 file 0 7\n"
#: it does so after a reboot, or another one after it was killed.
AGAIN, KILLED = "umlab-agent 2 line 1 7\n", "umlab-agent 2 line 0 8\n"
_LONG = scaled(10)


class Asked(NamedTuple):
    """A request.

    Attributes:
        input: ``none``, ``pipe`` or ``tty``.
        window: Rows and columns.
        script: What is to run, without what the host puts in front.
        serial: What the host has put there.
    """

    input: str
    window: tuple[int, int]
    script: bytes
    serial: int


class ScriptedAgent:
    """A guest whose agent a test plays.

    Args:
        share: The folder in common; the guest need not use it.

    Attributes:
        agent: The host's end.
        heard: What the host has said on the control line, but for ``open``, which is answered, and ``begin``.
        died: The guest's exit status.
    """

    def __init__(self, share: Path) -> None:
        self.share = share
        self.died: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        pairs = [socket.socketpair() for _ in range(1 + 2 * SESSIONS)]
        self._socks = [theirs for _, theirs in pairs]
        ours = [sock for sock, _ in pairs]
        self.agent = Agent(
            "g", ours[0], ours[1:], str(share), ended=self._ended, console_text=lambda: "last words"
        )
        self._writers: list[asyncio.StreamWriter] = []
        self._readers: list[asyncio.StreamReader] = []
        self._listening: asyncio.Task[None]

    async def connect(self) -> None:
        """Begin to listen."""
        for sock in self._socks:
            reader, writer = await asyncio.open_unix_connection(sock=sock)
            self._readers.append(reader)
            self._writers.append(writer)
        self._listening = asyncio.create_task(self._listen())

    def say(self, text: str | bytes) -> None:
        """Say something on the control line."""
        self._writers[0].write(text if isinstance(text, bytes) else text.encode())

    def write(self, number: int, data: bytes, *, errors: bool = False) -> None:
        """Write output of a session."""
        self._writers[2 * number - (not errors)].write(data)

    async def read(self, number: int, size: int) -> bytes:
        """Return what the host sends on a session's line."""
        async with asyncio.timeout(_LONG):
            return await self._readers[2 * number - 1].readexactly(size)

    async def line(self, number: int) -> str:
        """Return the next line of what the host sends on a session's line."""
        async with asyncio.timeout(_LONG):
            return (await self._readers[2 * number - 1].readuntil(b"\n")).decode().rstrip("\n")

    async def told(self) -> str:
        """Return what the host says next."""
        async with asyncio.timeout(_LONG):
            return await self.heard.get()

    async def head(self, number: int = 1) -> list[str]:
        """Return the words of a request's line, from the serial on."""
        assert await self.line(number) == ""
        run, *words = (await self.line(number)).split()
        assert run == "run"
        return words

    async def request(self, number: int = 1) -> Asked:
        """Take a request, as a session does."""
        _, kind, rows, columns, how, what = await self.head(number)
        if how == "file":
            script = (self.share / what).read_bytes()
        else:
            script, left = b"", int(what)
            while left:
                piece = min(left, LINE_PIECE)
                script += await self.read(number, piece)
                left -= piece
                self.say(f"{number} more\n")
        _, _, first, _, script = script.split(b"\n", 4)
        return Asked(kind, (int(rows), int(columns)), script, int(first.split()[2]))

    def end(self, number: int = 1, status: int = 0, output: bytes = b"", errors: bytes = b"") -> None:
        """End a command."""
        self.write(number, output)
        self.write(number, errors, errors=True)
        self.say(f"{number} exit {status}\n{number} end\n")

    async def settle(self, number: int = 1, lines: tuple[int, ...] = (1,)) -> None:
        """Say that all that was written to a session's lines is with the host, which asks for that."""
        for line in lines:
            assert await self.line(number) == f"settle {line}"
            self.say(f"{number} settled\n")

    def die(self, status: int) -> None:
        """End, as a guest whose kernel is killed."""
        self.cut_lines()
        self.died.set_result(status)

    def cut_lines(self) -> None:
        """Close the lines."""
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """Close both ends."""
        await self.agent.close()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self.cut_lines()
        for writer in self._writers:
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _ended(self) -> int:
        return await asyncio.shield(self.died)

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := (await self._readers[0].readline()).decode():
                if line.startswith("open "):
                    self.say(f"{line.split()[1]} end\n")
                elif not line.startswith("begin "):
                    self.heard.put_nowait(line.rstrip("\n"))


def run(guest: ScriptedAgent, command: str, timeout: float = _LONG) -> asyncio.Task[ExecResult]:
    """Begin to run a command."""
    return asyncio.create_task(guest.agent.run(command, timeout))


async def opened(guest: ScriptedAgent, request: Request, number: int = 1) -> Session:
    """Begin a command, take its request and return its session."""
    opening = asyncio.create_task(guest.agent.open(request))
    await guest.request(number)
    return await opening


async def freed(guest: ScriptedAgent, number: int = 1) -> None:
    """Wait until a session can be used again."""
    await wait_until_async(lambda: number in guest.agent._idle, 10, "a free session")


async def all_of(read: Callable[[], Awaitable[bytes]]) -> bytes:
    """Return all that is read until the end."""
    output = b""
    async with asyncio.timeout(_LONG):
        while data := await read():
            output += data
    return output
