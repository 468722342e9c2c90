"""The command channel into a guest that runs our agent, over its first serial line.

A byte stream.  The guest greets with the line ``umlab-agent 1``.  A request is one line,
``NUMBER LIMIT COMMAND``: a decimal number, the seconds after which the guest kills the command, and a
shell script in base64.  The reply is the line ``NUMBER STATUS LENGTH`` and then exactly LENGTH bytes,
the command's standard output and error.  Everything that comes from the guest is untrusted.
"""

from __future__ import annotations

import asyncio
import base64
import math
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from umlab.errors import CommandTimeout, GuestFailed, LocalProtocolError, RemoteProtocolError, StateError

#: Bytes of a command.
MAX_COMMAND = 256 * 1024
#: Bytes of output that are accepted from one command.
MAX_OUTPUT = 64 << 20
_GREETING = b"umlab-agent 1\n"
_REPLY = re.compile(rb"([0-9]{1,18}) ([0-9]{1,3}) ([0-9]{1,18})\n")
#: Seconds that the guest gives a command beyond its caller's time limit before it kills it.
_GUEST_GRACE = 1
#: Seconds that a dead guest's exit status takes at most to arrive after the end of its serial line.
_STATUS_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a guest ended.

    Attributes:
        status: Its exit status, 128 + n when signal n ended it.
        output: Standard output and error, raw and untrusted.
    """

    status: int
    output: bytes


@dataclass(frozen=True, slots=True)
class ReplyHead:
    """The line that begins a reply: for which request, the exit status, the bytes that follow."""

    number: int
    status: int
    length: int


def serialize_request(number: int, limit: int, command: str) -> bytes:
    """Build a request.

    Raises:
        LocalProtocolError: The command has more than 256 KiB.
    """
    script = command.encode("utf-8", "surrogateescape")
    if len(script) > MAX_COMMAND:
        raise LocalProtocolError(f"a command of {len(script)} bytes, at most {MAX_COMMAND} are sent")
    return b"%d %d %s\n" % (
        number,
        limit,
        base64.b64encode(script + b"\n"),
    )  # the newline keeps the word from being empty


def parse_reply_head(line: bytes) -> ReplyHead:
    """Decode the line that begins a reply.

    Raises:
        RemoteProtocolError: It is no such line, or announces more than 64 MiB.
    """
    match = _REPLY.fullmatch(line)
    if match is None:
        raise RemoteProtocolError(f"the guest's agent said {line[:80]!r}")
    number, status, length = (int(field) for field in match.groups())
    if length > MAX_OUTPUT or status > 255:
        raise RemoteProtocolError(f"the guest's agent said {line!r}")
    return ReplyHead(number, status, length)


class Agent:
    """The host's end of the channel.

    Args:
        umid: The guest.
        sock: Our end of the serial line's stream; belongs to the agent from now on.
        ended: Waits for the guest's end and returns its exit status.
        console_text: Returns the escaped tail of its console.
    """

    def __init__(
        self,
        umid: str,
        sock: socket.socket,
        *,
        ended: Callable[[], Awaitable[int]],
        console_text: Callable[[], str],
    ) -> None:
        self._umid = umid
        self._sock = sock
        self._ended = ended
        self._console_text = console_text
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._lock = asyncio.Lock()
        self._number = 0
        self._greeted = False
        self._closed = False
        # The head of a reply whose output is not read yet: its caller may have gone away meanwhile.
        self._head: ReplyHead | None = None
        self._broken = ""

    async def ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait for the agent's greeting; returns at once when it has come already.

        Args:
            timeout: Seconds.

        Raises:
            GuestFailed: The guest ended, or did not greet in time.
            RemoteProtocolError: Something else greeted.
        """
        try:
            async with asyncio.timeout(timeout), self._lock:
                await self._greet()
        except TimeoutError:
            raise GuestFailed(self._umid, None, self._console_text()) from None

    async def run(self, command: str, timeout: float) -> ExecResult:  # noqa: ASYNC109
        """Run a shell script in the guest, as its root, with empty standard input.

        Callers queue up: one command runs at a time.  A command that outlives its time limit is killed
        in the guest soon after.

        Args:
            command: The script.
            timeout: Seconds from the call on, waiting for other callers included.

        Raises:
            CommandTimeout: The time limit came first.
            GuestFailed: The guest ended.
            LocalProtocolError: The command has more than 256 KiB.
            RemoteProtocolError: The guest sent something else than a reply.
            StateError: The channel is closed, or was broken before.
        """
        self._number += 1
        number = self._number
        request = serialize_request(number, math.ceil(timeout) + _GUEST_GRACE, command)
        try:
            async with asyncio.timeout(timeout), self._lock:
                await self._greet()
                return await self._exchange(number, request)
        except TimeoutError:
            raise CommandTimeout(self._umid, command, timeout) from None

    def close(self) -> None:
        """Close the channel; commands that wait for a reply fail.  Idempotent."""
        self._closed = True
        if self._streams is not None:
            self._streams[1].transport.abort()
        self._sock.close()

    async def _greet(self) -> None:
        if self._greeted:
            return
        reader, _ = await self._connect()
        line = await self._read_line(reader)
        if line != _GREETING:
            self._break(f"the guest's agent greeted with {line[:80]!r}")
        self._greeted = True

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._closed:
            raise StateError(f"guest {self._umid}: the command channel is closed")
        if self._broken:
            raise StateError(f"guest {self._umid}: the command channel is broken: {self._broken}")
        if self._streams is None:
            self._sock.setblocking(False)
            self._streams = await asyncio.open_unix_connection(sock=self._sock)
        return self._streams

    async def _exchange(self, number: int, request: bytes) -> ExecResult:
        reader, writer = await self._connect()
        try:
            writer.write(request)
            await writer.drain()
        except ConnectionError:
            await self._fail()
        while True:
            if self._head is None:
                self._head = self._parse(await self._read_line(reader), number)
            try:
                output = await reader.readexactly(self._head.length)
            except (asyncio.IncompleteReadError, ConnectionError):
                await self._fail()
            head, self._head = self._head, None
            if head.number == number:
                return ExecResult(head.status, output)

    def _parse(self, line: bytes, number: int) -> ReplyHead:
        try:
            head = parse_reply_head(line)
        except RemoteProtocolError as error:
            self._break(str(error))
        if head.number > number:
            self._break(f"the guest's agent answered request {head.number} before it was sent")
        return head

    async def _read_line(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError:
            self._break("the guest's agent sent a line without an end")
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._fail()

    async def _fail(self) -> NoReturn:
        """Report the end of the serial line, which as a rule is the end of the guest."""
        if self._closed:
            raise StateError(f"guest {self._umid}: the command channel is closed")
        try:
            status: int | None = await asyncio.wait_for(asyncio.ensure_future(self._ended()), _STATUS_TIMEOUT)
        except TimeoutError:
            status = None
        raise GuestFailed(self._umid, status, self._console_text()) from None

    def _break(self, reason: str) -> NoReturn:
        self._broken = reason
        raise RemoteProtocolError(reason) from None
