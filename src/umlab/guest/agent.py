"""The command channel into a guest that runs our agent, over its first serial line.

A byte stream.  The guest greets with the line ``umlab-agent 1``.  A request is the line ``LIMIT
LENGTH``, the seconds after which the guest kills the command and the bytes of a shell script; then the
script in pieces of 2048 bytes, the last one shorter, each answered by the line ``more`` (a UML serial
line that got 4 KiB at once would stop for ever).  The reply is the line ``STATUS LENGTH`` and then
exactly LENGTH bytes, the command's standard output and error.  All that the guest sends is untrusted.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn

from umlab.errors import CommandTimeout, GuestFailed, LocalProtocolError, RemoteProtocolError, StateError

#: Bytes of a command.
MAX_COMMAND = 1 << 20
#: Bytes of output that are accepted from one command.
MAX_OUTPUT = 64 << 20
_PIECE = 2048
_GREETING = b"umlab-agent 1\n"
_MORE = b"more\n"
_REPLY = re.compile(rb"([0-9]{1,3}) ([0-9]{1,9})\n")
#: Seconds that the guest gives a command beyond its caller's time limit before it kills it.
_GUEST_GRACE = 1
#: Seconds that a dead guest's exit status takes at most to arrive after the end of its serial line.
_STATUS_TIMEOUT = 2.0
_CLOSED = "it is closed"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """How a command in a guest ended.

    Attributes:
        status: Its exit status, 128 + n when signal n ended it.
        output: Standard output and error, raw and untrusted.
    """

    status: int
    output: bytes


def parse_reply_head(line: bytes) -> tuple[int, int]:
    """Decode the line that begins a reply and return the exit status and the bytes that follow.

    Raises:
        RemoteProtocolError: It is no such line, or announces more than 64 MiB.
    """
    match = _REPLY.fullmatch(line)
    status, length = (int(match[1]), int(match[2])) if match else (-1, 0)
    if not 0 <= status <= 255 or length > MAX_OUTPUT:
        raise RemoteProtocolError(f"the guest's agent said {line[:80]!r}")
    return status, length


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
        # Held from a request to the end of its reply, also when its caller has gone away meanwhile.
        self._lock = asyncio.Lock()
        self._exchanging: asyncio.Task[ExecResult] | None = None
        self._greeted = False
        self._unusable = ""

    def assume_ready(self) -> None:
        """Take it that the agent has greeted, an earlier owner of this end having read that."""
        self._greeted = True

    async def ready(self, timeout: float) -> None:  # noqa: ASYNC109
        """Wait until the agent has greeted.

        Args:
            timeout: Seconds.

        Raises:
            GuestFailed: The guest ended, or did not greet in time.
            RemoteProtocolError: Something else greeted.
            StateError: The channel is closed, or was broken before.
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
            LocalProtocolError: The command has more than 1 MiB.
            RemoteProtocolError: The guest sent something else than a reply.
            StateError: The channel is closed, or was broken before.
        """
        script = command.encode("utf-8", "surrogateescape")
        if len(script) > MAX_COMMAND:
            raise LocalProtocolError(f"a command of {len(script)} bytes, at most {MAX_COMMAND} are sent")
        limit = math.ceil(timeout) + _GUEST_GRACE
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(await self._begin(limit, script))
        except TimeoutError:
            raise CommandTimeout(self._umid, command, timeout) from None

    async def reboot(self, reboot: Callable[[], Awaitable[object]], timeout: float) -> None:  # noqa: ASYNC109
        """Reboot the guest and wait until its agent has greeted again; other callers wait meanwhile.

        Args:
            reboot: Makes the guest reboot.
            timeout: Seconds for all of it.

        Raises:
            GuestFailed: The guest ended, or did not greet in time.
        """
        try:
            async with asyncio.timeout(timeout), self._lock:
                await self._greet()
                await self._skip_greeting()
                await reboot()
                self._greeted = False
                await self._greet()
        except TimeoutError:
            raise GuestFailed(self._umid, None, self._console_text()) from None

    async def close(self) -> None:
        """Close the channel; commands that wait for a reply fail.  Idempotent."""
        self._unusable = _CLOSED
        if self._streams is not None:
            self._streams[1].transport.abort()
            with contextlib.suppress(OSError):
                await self._streams[1].wait_closed()
        if self._exchanging is not None:
            await asyncio.wait([self._exchanging])
        self._sock.close()

    async def _begin(self, limit: int, script: bytes) -> asyncio.Task[ExecResult]:
        await self._lock.acquire()
        try:
            await self._greet()
            await self._skip_greeting()
            task = asyncio.create_task(self._exchange(limit, script))
        except BaseException:
            self._lock.release()
            raise
        self._exchanging = task
        task.add_done_callback(self._exchanged)
        return task

    def _exchanged(self, task: asyncio.Task[ExecResult]) -> None:
        self._exchanging = None
        self._lock.release()
        if not task.cancelled():
            task.exception()  # Its caller may be gone; then nobody else looks.

    async def _exchange(self, limit: int, script: bytes) -> ExecResult:
        reader, writer = await self._connect()
        try:
            writer.write(b"%d %d\n" % (limit, len(script)))
            for start in range(0, len(script), _PIECE):
                writer.write(script[start : start + _PIECE])
                await writer.drain()
                line = await reader.readuntil(b"\n")
                if line != _MORE:
                    raise RemoteProtocolError(f"the guest's agent said {line[:80]!r}")
            line = await reader.readuntil(b"\n")
            if line == _GREETING:  # The command rebooted the guest, or died with a reboot.
                raise GuestFailed(self._umid, None, self._console_text())
            status, length = parse_reply_head(line)
            return ExecResult(status, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._fail()
        except (RemoteProtocolError, asyncio.LimitOverrunError) as error:
            self._break(str(error))

    async def _greet(self) -> None:
        reader, _ = await self._connect()
        if self._greeted:
            return
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            self._break(str(error))
        except (asyncio.IncompleteReadError, ConnectionError):
            await self._fail()
        if line != _GREETING:
            self._break(f"the guest's agent greeted with {line[:80]!r}")
        self._greeted = True

    async def _skip_greeting(self) -> None:
        """Take the greeting of a guest that has rebooted by itself since the last reply."""
        reader, _ = await self._connect()
        # The second turn of the event loop comes after the reading of what has arrived; a whole line is
        # then had without waiting.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            async with asyncio.timeout(0):
                line = await reader.readuntil(b"\n")
                if line != _GREETING:
                    self._break(f"the guest's agent said {line[:80]!r} without being asked")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._unusable:
            raise StateError(f"guest {self._umid}: the command channel cannot be used: {self._unusable}")
        if self._streams is None:
            self._sock.setblocking(False)
            self._streams = await asyncio.open_unix_connection(sock=self._sock)
        return self._streams

    async def _fail(self) -> NoReturn:
        """Report the end of the serial line, which as a rule is the end of the guest."""
        if self._unusable == _CLOSED:
            raise StateError(f"guest {self._umid}: the command channel was closed")
        try:
            async with asyncio.timeout(_STATUS_TIMEOUT):
                status: int | None = await self._ended()
        except TimeoutError:
            status = None
        raise GuestFailed(self._umid, status, self._console_text()) from None

    def _break(self, reason: str) -> NoReturn:
        self._unusable = reason
        raise RemoteProtocolError(reason) from None
