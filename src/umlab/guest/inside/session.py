"""A command that runs in a guest, on two serial lines of its own.

Its standard input and output have the first line, its standard error the second one.  To the host goes what
the command writes, nothing else.  To the guest go requests and pieces of input, each announced by a line
and acknowledged on the control line, because a serial line whose reader is some 4,000 bytes behind stops
for ever:

* ``run SERIAL INPUT ROWS COLUMNS file NAME`` runs the script of that name in the common folder; ``line
  LENGTH`` instead of the last two is followed by the script in pieces of 2048 bytes, the last one shorter.
  INPUT is ``none``, ``pipe`` or ``tty``: then the first line is the command's terminal, and what is typed
  is not acknowledged.  An empty line comes before it, to end what nobody has read before a reboot.
* ``file NAME`` and ``line LENGTH`` are a piece of input, ``end`` is its end.
* ``settle LINE``, after a command's end, asks for word when what it wrote to its first or second line is
  with the host: when the host is behind, the guest's kernel keeps the last 4,096 bytes to itself for a while.

Source: Linux arch/um/drivers/line.c ``line_throttle``, drivers/tty/n_tty.c; net/core/sock.c ``SK_WMEM_MAX``,
which is 256 packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from umlab.errors import LocalProtocolError, RemoteProtocolError, UmlabError
from umlab.guest.inside.hearing import Hearing
from umlab.guest.inside.share import Share

_log = logging.getLogger(__name__)

#: Bytes of a script.
MAX_SCRIPT = 1 << 20
#: Bytes of a piece of input, in a file and on the line.
FILE_PIECE, LINE_PIECE = 4 << 20, 2048
#: Pieces in files that are under way: the guest takes one while the next one is written.
_FILES_UNDER_WAY = 2
_READ_SIZE = 64 * 1024
#: Reads that empty any socket, were it not filled anew.
_SOCKET_READS = 16
#: Bytes that a socket takes while nobody reads, if each has been a write of its own.
_TAKEN_AT_ONCE = 200
#: Seconds of silence after a command's end, in which what it has started writes nothing more.
_GRACE = 1.0

#: What the script of session N begins with: its process group, which signals go to, and a signal that came
#: too early; one that came too late for an earlier command has another serial number.  The session's shell
#: tells who was killed on its own standard error, so the command's is made here.  What the session has of the
#: kernel's mercy is not for the command.
_PREAMBLE = (
    "exec STREAMS\n"
    "{ echo 0 >/proc/self/oom_score_adj; } 2>/dev/null\n"
    "echo $$ SERIAL >/run/umlab/N.pid\n"
    '{ read -r REPLY && [ "${REPLY#* }" = SERIAL ] && kill -s "${REPLY% *}" -- -$$; } </run/umlab/N.pending\n'
)

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

    def script_bytes(self) -> bytes:
        """Return the script as it is sent.

        Raises:
            LocalProtocolError: It has more than 1 MiB, or is no text.
        """
        try:
            script = self.script.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise LocalProtocolError("a command that is no text") from None
        if len(script) > MAX_SCRIPT:
            raise LocalProtocolError(f"a command of {len(script)} bytes, at most {MAX_SCRIPT} are sent")
        return script


class Stream:
    """What comes on one of a session's lines for one command.

    Args:
        sock: Our end of the line, which does not block; stays the caller's.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._waking: asyncio.Future[None] | None = None
        self._has_ended = False
        self._has_exited = False
        self._failure: UmlabError | None = None
        # What is out of the socket and has not been read.
        self._here = b""
        self._received = 0

    def send(self, data: bytes) -> bool:
        """Send all of it at once and say whether there was room."""
        try:
            return self._sock.send(data) == len(data)
        except BlockingIOError:
            return False
        except ConnectionError:
            # The line's end is the guest's: who reads the control line tells how it ended.
            return True

    async def read(self) -> bytes:
        """Return what comes next, empty at the end.

        Raises:
            UmlabError: The guest has gone, or makes no sense.
        """
        while True:
            # Others have their turn however fast the guest writes.
            await asyncio.sleep(0)
            if self._here:
                data, self._here = self._here, b""
                return data
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
                await self._told()
                continue
            self._received += len(data)
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
        """Have everybody who reads get an error behind what is there; the line is used no more."""
        if self._failure is None:
            self._take()
            self._failure = error
            self._wake()

    def is_settled(self) -> bool:
        """Say whether nothing can be left in the guest's kernel of what was written until now."""
        self._take()
        return self._received <= _TAKEN_AT_ONCE

    def clear(self) -> None:
        """Throw away what is there."""
        self._here = b""
        take_all(self._sock)

    def _take(self) -> None:
        data = take_all(self._sock)
        self._here += data
        self._received += len(data)

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
            # Whoever has closed it has done so.
            if self._sock.fileno() >= 0:
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


def take_all(line: socket.socket) -> bytes:
    """Return what is there on a line, of which a socket holds so much only."""
    found = b""
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        for _ in range(_SOCKET_READS):
            data = line.recv(_READ_SIZE)
            if not data:
                break
            found += data
    return found


class Session:
    """A command that runs, made by :meth:`umlab.guest.inside.agent.Agent.open`; close it when you are done.

    Args:
        number: From 1.
        serial: Tells it from others that have had, or will have, the same number.
        lines: Our ends of its two lines.
        share: The common folder, where the guest has it.
        tell: Sends a line on the control line.

    Attributes:
        hearing: Whether the guest hears its signals.
    """

    def __init__(
        self,
        number: int,
        serial: int,
        lines: Sequence[socket.socket],
        share: Share | None,
        tell: Callable[[str], None],
    ) -> None:
        self.number = number
        self.hearing = Hearing()
        self._serial = serial
        self._output, self._errors = map(Stream, lines)
        self._share = share
        self._tell = tell
        self._input: Input = "none"
        self._script: str | None = None
        # Pieces that the guest has not taken yet, each by the name of its file, if it has one.
        self._under_way: deque[str | None] = deque()
        self._taken = asyncio.Event()
        self._status: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # Its error is told to whoever asks, if anybody does.
        self._status.add_done_callback(lambda future: future.cancelled() or future.exception())
        # Lines of which word is awaited.
        self._unsettled = 0
        self._free: asyncio.Event = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None

    async def start(self, request: Request) -> None:
        """Send the request; one that has been begun is sent to its end, though the caller be cancelled.

        Raises:
            UmlabError: The guest has gone.
        """
        self._input = request.input
        self._starting = asyncio.create_task(self._send_request(request))
        await asyncio.shield(self._starting)

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
        """Give the command input; returns when the guest has taken all but the last two pieces.

        What a command that has ended has not read is lost.  A terminal takes what is typed at once, and loses
        what is typed some 4,000 bytes ahead of its reader.

        Raises:
            UmlabError: The guest has gone.
        """
        if self._input == "tty":
            self._send(data)
            return
        while data:
            await self._room(_FILES_UNDER_WAY)
            if not self._is_fed():
                return
            name = self._put(data[:FILE_PIECE])
            if name is not None:
                self._under_way.append(name)
                self._send(f"file {name}\n".encode())
                data = data[FILE_PIECE:]
            else:
                await self._room(1)
                if not self._is_fed():
                    return
                piece, data = data[:LINE_PIECE], data[LINE_PIECE:]
                self._send(f"line {len(piece)}\n".encode())
                await self._send_piece(piece)

    async def end_input(self) -> None:
        """End the command's input.  Idempotent; a terminal's end is typed.  Raises UmlabError."""
        if self._input == "pipe":
            await self._room(1)
        self._send_end()

    def signal(self, name: str) -> None:
        """Send the command's process group a signal, such as ``INT``; nothing happens after its end."""
        if not self._status.done():
            self._tell(f"signal {self.number} {name} {self._serial}")
            self.hearing.told()

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

    def cut(self) -> None:
        """Wait no longer for what the command, which has ended, has started and left behind."""
        self._tell(f"cut {self.number} {self._serial}")

    @property
    def has_exited(self) -> bool:
        """Whether the command has ended; what it has started may still write."""
        return self._status.done()

    @property
    def is_free(self) -> bool:
        """Whether nothing more comes of the command."""
        return self._free.is_set()

    def took(self) -> None:
        """Take note that the guest has taken a piece."""
        if self._under_way:
            self._drop(self._under_way.popleft())
            self._taken.set()
            self._end_unread()

    def exited(self, status: int) -> None:
        """Take note of the command's end."""
        if not self._status.done():
            self._status.set_result(status)
        if self._input == "tty":
            # What is still typed is for nobody.
            self._input = "none"
        for stream in (self._output, self._errors):
            stream.exited()
        self._end_unread()

    def ended(self) -> None:
        """Take note that the session is free; the guest's kernel may still have some of its output."""
        with contextlib.suppress(UmlabError):
            for line, stream in enumerate((self._output, self._errors), 1):
                if not stream.is_settled():
                    self._send(f"settle {line}\n".encode())
                    self._unsettled += 1
        if not self._unsettled:
            self._end()

    def settled(self) -> None:
        """Take note that one of its lines has nothing more."""
        self._unsettled -= 1
        if self._unsettled == 0:
            self._end()

    def _end(self) -> None:
        self._output.ended()
        self._errors.ended()
        self._free.set()

    def fail(self, error: UmlabError) -> None:
        """Take note that the guest, or its agent, has gone."""
        if not self._status.done():
            self._status.set_exception(error)
        for stream in (self._output, self._errors):
            stream.fail(error)
        self._drop_pieces()
        self._taken.set()
        self._free.set()

    async def drain(self) -> None:
        """Read the rest, for nobody, until the session is free for another command.  Raises UmlabError."""
        if self._starting is not None:
            await self._starting
        while not self._free.is_set():
            await asyncio.gather(self._skip(self._output), self._skip(self._errors), self.end_input())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._free.wait(), _GRACE)
        self._output.clear()
        self._errors.clear()

    def forget(self) -> None:
        """Remove the files that it has in the common folder."""
        self._drop_pieces()
        self._drop(self._script)
        self._script = None

    async def _send_request(self, request: Request) -> None:
        streams = ">&0 2>&0" if request.input == "tty" else ">&7 2>&8 7>&- 8>&-"
        preamble = _PREAMBLE.replace("STREAMS", streams).replace("SERIAL", str(self._serial))
        preamble = preamble.replace("/N.", f"/{self.number}.")
        script = preamble.encode() + request.script_bytes()
        rows, columns = request.window
        head = f"\nrun {self._serial} {request.input} {rows} {columns}"
        self._script = self._put(script)
        if self._script is not None:
            self._send(f"{head} file {self._script}\n".encode())
            return
        self._send(f"{head} line {len(script)}\n".encode())
        for start in range(0, len(script), LINE_PIECE):
            await self._send_piece(script[start : start + LINE_PIECE])
        await self._room(1)

    def _put(self, data: bytes) -> str | None:
        """Return the name of a file with these bytes in the common folder, ``None`` where it takes none."""
        try:
            return self._share.put(data) if self._share is not None else None
        except OSError as error:
            # No room is left, or the guest has made it unusable: then all goes over the line.
            _log.warning("session %d: the folder in common takes no file: %s", self.number, error.strerror)
            self._share = None
            return None

    async def _skip(self, stream: Stream) -> None:
        while await stream.read():
            pass

    async def _send_piece(self, piece: bytes) -> None:
        """Send bytes that are acknowledged, when what was sent before has been."""
        await self._room(1)
        self._under_way.append(None)
        self._send(piece)

    def _is_fed(self) -> bool:
        return self._input == "pipe"

    def _end_unread(self) -> None:
        """Have the guest wait for no more input of a command that has ended; its output ends with that."""
        if self._status.done() and not self._under_way:
            # Who reads is told what is wrong.
            with contextlib.suppress(UmlabError):
                self._send_end()

    def _send_end(self) -> None:
        if self._input == "pipe":
            self._input = "none"
            self._send(b"end\n")

    async def _room(self, most: int) -> None:
        """Wait until fewer pieces are under way."""
        while len(self._under_way) >= most:
            self._taken.clear()
            await self._taken.wait()

    def _send(self, data: bytes) -> None:
        # Its lines may be another one's by now.
        if self._status.done() and (failure := self._status.exception()) is not None:
            raise failure
        if not self._output.send(data):
            raise RemoteProtocolError("the guest's agent does not read")

    def _drop(self, name: str | None) -> None:
        if self._share is not None and name is not None:
            self._share.drop(name)

    def _drop_pieces(self) -> None:
        while self._under_way:
            self._drop(self._under_way.popleft())


async def _all(stream: Stream, limit: int) -> bytes:
    output = bytearray()
    while data := await stream.read():
        output += data
        if len(output) > limit:
            raise RemoteProtocolError(f"the command wrote more than {limit} bytes")
    return bytes(output)
