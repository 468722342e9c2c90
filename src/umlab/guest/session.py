"""A command that runs in a guest, on two serial lines of its own.

Its standard input and output have the first line, its standard error the second one.  To the host goes what
the command writes, nothing else.  To the guest go requests
and pieces of input, each announced by a line and acknowledged on the control line, because a serial line
whose reader is some 4,000 bytes behind stops for ever:

* ``run INPUT ROWS COLUMNS file NAME`` runs the script of that name in the common folder; ``line LENGTH``
  instead is followed by the script in pieces of 2048 bytes, the last one shorter.  INPUT is ``none``,
  ``pipe`` or ``tty``: then the first line is the command's terminal, and what is typed is not acknowledged.
* ``file NAME`` and ``line LENGTH`` are a piece of input, ``end`` is its end.

Source: Linux arch/um/drivers/line.c ``line_throttle``, drivers/tty/n_tty.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from umlab.errors import LocalProtocolError, RemoteProtocolError, UmlabError
from umlab.guest.share import Share

#: Bytes of a script.
MAX_COMMAND = 1 << 20
#: Bytes of a piece of input, in a file and on the line.
FILE_PIECE, LINE_PIECE = 1 << 20, 2048
_READ_SIZE = 64 * 1024
#: Seconds of silence after a command's end, in which what it has started writes nothing more.
_GRACE = 1.0

Input = Literal["none", "pipe", "tty"]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to run.

    Attributes:
        script: For the guest's ``/bin/sh``.
        input: Where its input comes from: nowhere, what :meth:`Session.write` sends, or a terminal.
        window: Rows and columns of the terminal.
    """

    script: str
    input: Input = "none"
    window: tuple[int, int] = (24, 80)


class Stream:
    """What comes on one of a session's lines, command after command.

    Args:
        sock: Our end; belongs to the stream from now on.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._waking: asyncio.Future[None] | None = None
        self.begin()

    def begin(self) -> None:
        """Expect the output of another command."""
        self._has_ended = False
        self._has_exited = False
        self._failure: UmlabError | None = None

    def send(self, data: bytes) -> bool:
        """Send all of it at once and say whether that went."""
        try:
            return self._sock.send(data) == len(data)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            return False

    async def read(self) -> bytes:
        """Return what comes next, empty at the end.

        Raises:
            UmlabError: The guest has gone, or makes no sense.
        """
        while True:
            if self._failure is not None:
                raise self._failure
            try:
                data = self._sock.recv(_READ_SIZE)
            except BlockingIOError:
                if self._has_ended or not await self._woken():
                    return b""
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                # The line's end is the guest's: who reads the control line tells how it ended.
                await self._told()
                continue
            return data

    def exited(self) -> None:
        """Take note of the command's end."""
        self._has_exited = True
        self._wake()

    def ended(self) -> None:
        """Take note that nothing comes after what is there by now."""
        self._has_ended = True
        self._wake()

    def fail(self, error: UmlabError) -> None:
        """Have everybody who reads get an error."""
        self._failure = self._failure or error
        self._wake()

    def clear(self) -> None:
        """Throw away what is there."""
        try:
            while self._sock.recv(_READ_SIZE):
                pass
        except (BlockingIOError, ConnectionResetError):
            return

    def fileno(self) -> int:
        """Return our end's descriptor."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close our end.  Idempotent."""
        self._sock.close()

    async def _woken(self) -> bool:
        """Wait for bytes or news; say whether either came before everything had been silent long enough."""
        loop = asyncio.get_running_loop()
        self._waking = loop.create_future()
        loop.add_reader(self._sock, self._wake)
        limit = _GRACE if self._has_exited and not self._has_ended else None
        try:
            async with asyncio.timeout(limit):
                await self._waking
        except TimeoutError:
            return False
        finally:
            self._waking = None
            loop.remove_reader(self._sock)
        return True

    async def _told(self) -> None:
        self._waking = asyncio.get_running_loop().create_future()
        try:
            await self._waking
        finally:
            self._waking = None

    def _wake(self) -> None:
        if self._waking is not None and not self._waking.done():
            self._waking.set_result(None)


class Session:
    """A command that runs, made by :meth:`umlab.guest.agent.Agent.open`; close it when you are done.

    Args:
        number: From 1.
        output: Its first line,
        errors: and its second one.
        share: The common folder, where the guest has it.
        tell: Sends a line on the control line.
    """

    def __init__(
        self,
        number: int,
        output: Stream,
        errors: Stream,
        share: Share | None,
        tell: Callable[[str], None],
    ) -> None:
        self.number = number
        self._output = output
        self._errors = errors
        self._share = share
        self._tell = tell
        self._input: Input = "none"
        self._script: str | None = None
        self._piece: str | None = None
        self._clear = asyncio.Event()
        self._clear.set()
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # Its error is told to whoever asks, if anybody does.
        self._status.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._free: asyncio.Event = asyncio.Event()
        output.begin()
        errors.begin()

    async def start(self, request: Request) -> None:
        """Send the request.

        Raises:
            LocalProtocolError: The script has more than 1 MiB.
            OSError: The common folder takes no file.
            UmlabError: The guest has gone.
        """
        script = request.script.encode("utf-8", "surrogateescape")
        if len(script) > MAX_COMMAND:
            raise LocalProtocolError(f"a command of {len(script)} bytes, at most {MAX_COMMAND} are sent")
        rows, columns = request.window
        self._input = request.input
        script = _NUMBERED.format(self.number).encode() + script
        head = f"run {request.input} {rows} {columns}"
        if self._share is not None:
            self._script = self._share.put(script)
            self._send(f"{head} file {self._script}\n".encode())
            return
        self._send(f"{head} line {len(script)}\n".encode())
        for start in range(0, len(script), LINE_PIECE):
            await self._send_piece(script[start : start + LINE_PIECE])
        await self._clear.wait()

    async def read_output(self) -> bytes:
        """Return what the command writes to its standard output or terminal, empty at the end.

        Raises:
            UmlabError: The guest has gone, or makes no sense.
        """
        return await self._output.read()

    async def read_errors(self) -> bytes:
        """Return what the command writes to its standard error, empty at the end.  Raises the same."""
        return await self._errors.read()

    async def output(self, limit: int) -> tuple[bytes, bytes]:
        """Return all that the command writes to its standard output and error.

        Args:
            limit: Bytes of each, at most.

        Raises:
            RemoteProtocolError: It wrote more.
            UmlabError: The guest has gone, or makes no sense.
        """
        tasks = [asyncio.create_task(_all(stream, limit)) for stream in (self._output, self._errors)]
        try:
            stdout, stderr = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return stdout, stderr

    async def write(self, data: bytes) -> None:
        """Give the command input; returns when the guest has taken all but the last piece.

        What a command that has ended has not read is lost.  A terminal takes what is typed at once, and loses
        what is typed some 4,000 bytes ahead of its reader.

        Raises:
            OSError: The common folder takes no file.
            UmlabError: The guest has gone.
        """
        assert self._input != "none"
        size = LINE_PIECE if self._share is None or self._input == "tty" else FILE_PIECE
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            if self._input == "tty":
                self._send(piece)
            elif self._share is None:
                await self._clear.wait()
                self._send(f"line {len(piece)}\n".encode())
                await self._send_piece(piece)
            else:
                await self._clear.wait()
                self._piece = self._share.put(piece)
                self._clear.clear()
                self._send(f"file {self._piece}\n".encode())

    async def end_input(self) -> None:
        """End the command's input.  Idempotent; a terminal's end is typed.  Raises UmlabError."""
        if self._input == "pipe":
            await self._clear.wait()
            self._input = "none"
            self._send(b"end\n")

    def signal(self, name: str) -> None:
        """Send the command's process group a signal, such as ``INT``; nothing happens after its end."""
        if not self._status.done():
            self._tell(f"signal {self.number} {name}")

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command how large its terminal is, in characters."""
        if not self._status.done():
            self._tell(f"size {self.number} {rows} {columns}")

    async def wait(self) -> int:
        """Wait for the command's end and return its exit status, 128 + n when signal n ended it.

        Raises:
            UmlabError: The guest has gone, or makes no sense.
        """
        return await asyncio.shield(self._status)

    @property
    def has_exited(self) -> bool:
        """Whether the command has ended; what it has started may still write."""
        return self._status.done()

    def took(self) -> None:
        """Take note that the guest has taken a piece."""
        self._drop_piece()
        self._clear.set()

    def exited(self, status: int) -> None:
        """Take note of the command's end."""
        if not self._status.done():
            self._status.set_result(status)
        for stream in (self._output, self._errors):
            stream.exited()

    def ended(self) -> None:
        """Take note that the session is free."""
        self._output.ended()
        self._errors.ended()
        self._free.set()

    def fail(self, error: UmlabError) -> None:
        """Take note that the guest, or its agent, has gone."""
        if not self._status.done():
            self._status.set_exception(error)
        for stream in (self._output, self._errors):
            stream.fail(error)
        self._clear.set()
        self._free.set()

    async def drain(self) -> None:
        """Read the rest, for nobody, until the session is free for another command."""
        while not self._free.is_set():
            await asyncio.gather(self._skip(self._output), self._skip(self._errors), self.end_input())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), _GRACE)
        self._output.clear()
        self._errors.clear()

    def forget(self) -> None:
        """Remove the files that it has in the common folder."""
        self._drop_piece()
        if self._share is not None and self._script is not None:
            self._share.drop(self._script)
            self._script = None

    async def _skip(self, stream: Stream) -> None:
        while await stream.read():
            pass

    async def _send_piece(self, piece: bytes) -> None:
        """Send bytes that are acknowledged, when what was sent before has been."""
        await self._clear.wait()
        self._clear.clear()
        self._send(piece)

    def _send(self, data: bytes) -> None:
        if self._status.done() and (failure := self._status.exception()) is not None:
            raise failure
        if not self._output.send(data):
            raise RemoteProtocolError("the guest's agent does not read")

    def _drop_piece(self) -> None:
        if self._share is not None and self._piece is not None:
            self._share.drop(self._piece)
            self._piece = None


async def _all(stream: Stream, limit: int) -> bytes:
    output = bytearray()
    while data := await stream.read():
        output += data
        if len(output) > limit:
            raise RemoteProtocolError(f"the command wrote more than {limit} bytes")
    return bytes(output)


#: What a script begins with: its process group, which signals go to, and a signal that came too early.
_NUMBERED = (
    "echo $$ >/run/umlab/{0}.pid\n"
    "[ ! -s /run/umlab/{0}.pending ] || {{ read -r REPLY; kill -s $REPLY -- -$$; }} </run/umlab/{0}.pending\n"
)
