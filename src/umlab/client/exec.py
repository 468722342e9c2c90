"""A command in a guest, over a WebSocket: its input, output and errors apart, and its exit status.

All that it writes is untrusted.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
import time
from contextlib import suppress
from typing import Any, Literal, NamedTuple, Self

from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import unix_connect as async_unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from umlab.client.call import QUICK_TIMEOUT, exec_path
from umlab.client.decode import refusal
from umlab.client.exchange import lost
from umlab.client.place import dial
from umlab.daemon.exec_order import INPUT_WINDOW, MAX_ORDER, ExecOrder
from umlab.errors import ApiError, ApiTimeout, CommandTimeout, LimitReached, LocalProtocolError, UmlabError
from umlab.guest.inside.agent import MAX_OUTPUT, ExecResult

__all__ = ["AsyncExec", "Exec", "ExecOrder", "ExecResult", "Output"]

_OPTIONS: dict[str, Any] = {
    "compression": None,
    "open_timeout": QUICK_TIMEOUT,
    "close_timeout": 1,
    "max_size": 1 << 20,
    # Neither side answers while it waits for the other to read.
    "ping_interval": None,
}
#: Bytes of a frame of input.
_FRAME_SIZE = 64 * 1024
_STREAMS: dict[int, Literal["stdout", "stderr"]] = {1: "stdout", 2: "stderr"}


class Output(NamedTuple):
    """A piece of what a command writes.

    Attributes:
        stream: Where to.
        data: Raw bytes, untrusted.
    """

    stream: Literal["stdout", "stderr"]
    data: bytes


class _Conversation:
    """What messages say, whoever carries them."""

    def __init__(self, lab: str, guest: str, order: ExecOrder) -> None:
        self.lab = lab
        self.uri = f"ws://umlab{exec_path(guest)}"
        self.begun = False
        self.status: int | None = None
        self.taken = 0
        try:
            self.order = json.dumps(dataclasses.asdict(order), ensure_ascii=False)
            size = len(self.order.encode())
        except UnicodeEncodeError:
            raise LocalProtocolError("the command is not UTF-8, which a lab's guest is sent") from None
        if size > MAX_ORDER:
            raise LocalProtocolError(f"a command of {size} bytes, at most {MAX_ORDER} are sent")

    def not_opened(self, error: BaseException) -> BaseException:
        """Return what to raise where opening has failed."""
        if isinstance(error, InvalidStatus):
            return refusal(self.lab, error.response.status_code, bytes(error.response.body or b""))
        if isinstance(error, TimeoutError):
            return self.silent()
        if isinstance(error, OSError | EOFError | InvalidHandshake):
            return lost(self.lab)
        return error

    def receive(self, message: str | bytes) -> Output | None:
        """Take a message; return what the command has written.

        Raises:
            UmlabError: The daemon refuses, or tells how the guest failed.
        """
        if isinstance(message, bytes):
            if (stream := _STREAMS.get(message[:1][0] if message else 0)) is None:
                raise ApiError(self.lab, "the daemon sent a stream that no command has")
            return Output(stream, message[1:])
        try:
            match json.loads(message):
                case {"begun": True}:
                    self.begun = True
                    return None
                case {"taken": int(taken)}:
                    self.taken = taken
                    return None
                case {"status": int(status)}:
                    self.status = status
                    return None
        except (ValueError, RecursionError):
            pass
        raise refusal(self.lab, 0, message.encode())

    def silent(self) -> ApiError:
        """Return the error for a daemon that does not answer."""
        return ApiTimeout(self.lab, "nothing came in time")


def _input_frame(data: bytes) -> bytes:
    return b"\0" + data


_END_INPUT = json.dumps({"end_input": True})


def _signal(name: str) -> str:
    return json.dumps({"signal": name})


def _resize(rows: int, columns: int) -> str:
    return json.dumps({"resize": [rows, columns]})


class _Gatherer:
    """All that a command writes."""

    def __init__(self) -> None:
        self._streams = {stream: bytearray() for stream in _STREAMS.values()}

    def add(self, output: Output) -> None:
        stream = self._streams[output.stream]
        stream += output.data
        if len(stream) > MAX_OUTPUT:
            raise LimitReached(f"the command wrote more than {MAX_OUTPUT} bytes; read them as they come")

    def result(self, status: int | None) -> ExecResult:
        assert status is not None
        return ExecResult(status, bytes(self._streams["stdout"]), bytes(self._streams["stderr"]))


class AsyncExec:
    """A command in a guest for asyncio, made by :meth:`open`; closed before its end it is killed.

    Attributes:
        begun: Whether it has its place in the guest, as far as has been read.
        status: Its exit status, 128 + n when signal n ended it; ``None`` before all output has been read.
    """

    def __init__(self, conversation: _Conversation, connection: AsyncConnection) -> None:
        self._conversation = conversation
        self._connection = connection
        self._sent = 0
        self._news = asyncio.Event()
        self._ended = False

    @classmethod
    async def open(cls, lab: str, guest: str, order: ExecOrder) -> AsyncExec:
        """Begin a command.  Raises LabNotRunning, LocalProtocolError, ApiTimeout; `read` raises the rest."""
        conversation = _Conversation(lab, guest, order)
        sock = dial(lab)
        try:
            connection = await async_unix_connect(sock=sock, uri=conversation.uri, **_OPTIONS)
        except BaseException as error:
            sock.close()
            raise conversation.not_opened(error) from None
        with suppress(ConnectionClosed):
            await connection.send(conversation.order)
        return cls(conversation, connection)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def begun(self) -> bool:
        """See above."""
        return self._conversation.begun

    @property
    def status(self) -> int | None:
        """See above."""
        return self._conversation.status

    async def read(self) -> Output | None:
        """Return what the command writes next, waiting for it; ``None`` once it has ended.

        A guest that boots is waited for, and so are eight commands that run there already.

        Raises:
            NoSuchGuest: There is no such guest.
            StateError: It has no agent that answers, or is removed.
            GuestFailed: It ended.
            ConnectionLost: The daemon has ended, and the command with it.
            UmlabError: What else the daemon refuses, or the guest does wrong.
        """
        while self.status is None:
            try:
                output = self._conversation.receive(await self._connection.recv())
            except (ConnectionClosed, UmlabError) as error:
                self._end()
                raise error if isinstance(error, UmlabError) else lost(self._conversation.lab) from None
            if output is not None:
                return output
            self._news.set()
        self._end()
        return None

    async def write(self, data: bytes) -> None:
        """Give the command input; read meanwhile: this waits while the guest is 8 MiB behind.

        What a command does not read before its end is lost.
        """
        for start in range(0, len(data), _FRAME_SIZE):
            piece = data[start : start + _FRAME_SIZE]
            while not self._ended and self._sent + len(piece) - self._conversation.taken > INPUT_WINDOW:
                self._news.clear()
                await self._news.wait()
            await self._send(_input_frame(piece))
            self._sent += len(piece)

    async def end_input(self) -> None:
        """End the command's input."""
        await self._send(_END_INPUT)

    async def signal(self, name: str) -> None:
        """Send the command and all that it has started a signal, such as ``INT``."""
        await self._send(_signal(name))

    async def resize(self, rows: int, columns: int) -> None:
        """Tell the command how large its terminal is, in characters, 1 to 9999 each."""
        await self._send(_resize(rows, columns))

    async def close(self) -> None:
        """Leave; a command that runs is killed.  Idempotent."""
        self._end()
        await self._connection.close()

    async def result(self, data: bytes | None) -> ExecResult:
        """Give the command all of its input and return how it ended.

        Raises what `read` raises, and LimitReached where it writes more than 64 MiB.
        """
        gatherer = _Gatherer()
        feeding = asyncio.create_task(self._feed(data))
        try:
            while (output := await self.read()) is not None:
                gatherer.add(output)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        return gatherer.result(self.status)

    async def _feed(self, data: bytes | None) -> None:
        if data is not None:
            await self.write(data)
            await self.end_input()

    async def _send(self, message: str | bytes) -> None:
        # That there is nobody any more, who reads is told.
        if not self._ended:
            with suppress(ConnectionClosed):
                await self._connection.send(message)

    def _end(self) -> None:
        self._ended = True
        self._news.set()


class Exec:
    """A command in a guest, begun at once; as `AsyncExec`.  One thread reads while others may write.

    Args:
        lab: The lab.
        guest: The guest.
        order: The command.

    Raises:
        LabNotRunning: No daemon answers.
        LocalProtocolError: The command is not UTF-8, or too long.
    """

    def __init__(self, lab: str, guest: str, order: ExecOrder) -> None:
        self._conversation = _Conversation(lab, guest, order)
        self._sent = 0
        self._news = threading.Condition()
        self._ended = False
        sock = dial(lab)
        sock.setblocking(True)
        try:
            self._connection: ClientConnection = unix_connect(
                sock=sock, uri=self._conversation.uri, **_OPTIONS
            )
        except BaseException as error:
            sock.close()
            raise self._conversation.not_opened(error) from None
        # It is closed with us.
        self._connection.__enter__()
        self._send(self._conversation.order)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def status(self) -> int | None:
        """The command's exit status, 128 + n when signal n ended it; ``None`` before all output is read."""
        return self._conversation.status

    def read(self, timeout: float | None = None) -> Output | None:
        """Return what the command writes next, waiting for it; ``None`` once it has ended.

        Raises what `AsyncExec.read` raises.

        Args:
            timeout: Most seconds to wait, then ApiTimeout; ``None`` waits for ever.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.status is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                output = self._conversation.receive(self._connection.recv(left))
            except TimeoutError:
                raise self._conversation.silent() from None
            except (ConnectionClosed, UmlabError) as error:
                self._end()
                raise error if isinstance(error, UmlabError) else lost(self._conversation.lab) from None
            if output is not None:
                return output
            with self._news:
                self._news.notify_all()
        self._end()
        return None

    def write(self, data: bytes) -> None:
        """Give the command input, as `AsyncExec.write` does; another thread has to read meanwhile."""
        for start in range(0, len(data), _FRAME_SIZE):
            piece = data[start : start + _FRAME_SIZE]
            with self._news:
                self._news.wait_for(
                    lambda: self._ended or self._sent + _FRAME_SIZE - self._conversation.taken <= INPUT_WINDOW
                )
            self._send(_input_frame(piece))
            self._sent += len(piece)

    def end_input(self) -> None:
        """End the command's input."""
        self._send(_END_INPUT)

    def signal(self, name: str) -> None:
        """Send the command and all that it has started a signal, such as ``INT``."""
        self._send(_signal(name))

    def resize(self, rows: int, columns: int) -> None:
        """Tell the command how large its terminal is, in characters, 1 to 9999 each."""
        self._send(_resize(rows, columns))

    def close(self) -> None:
        """Leave; a command that runs is killed.  Idempotent."""
        self._end()
        self._connection.close()

    def result(self, data: bytes | None, timeout: float | None = None) -> ExecResult:
        """Give the command all of its input and return how it ended; raises what `AsyncExec.result` raises.

        Args:
            data: The input.
            timeout: Most seconds, then ApiTimeout.
        """
        gatherer = _Gatherer()
        deadline = None if timeout is None else time.monotonic() + timeout

        def left() -> float | None:
            return None if deadline is None else deadline - time.monotonic()

        feeder = threading.Thread(target=self._feed, args=(data,), name="input")
        feeder.start()
        try:
            while (output := self.read(left())) is not None:
                gatherer.add(output)
        finally:
            self.close()
            feeder.join()
        return gatherer.result(self.status)

    def _feed(self, data: bytes | None) -> None:
        if data is not None:
            self.write(data)
            self.end_input()

    def _send(self, message: str | bytes) -> None:
        if not self._ended:
            with suppress(ConnectionClosed):
                self._connection.send(message)

    def _end(self) -> None:
        with self._news:
            self._ended = True
            self._news.notify_all()


async def run_async(
    lab: str, guest: str, order: ExecOrder, data: bytes | None, seconds: float | None
) -> ExecResult:
    """Run a command to its end; see `umlab.client.aio.AsyncClient.exec`."""
    try:
        async with asyncio.timeout(seconds), await AsyncExec.open(lab, guest, order) as running:
            return await running.result(data)
    except TimeoutError:
        raise CommandTimeout(guest, order.text, seconds or 0) from None


def run(lab: str, guest: str, order: ExecOrder, data: bytes | None, seconds: float | None) -> ExecResult:
    """Run a command to its end; see `umlab.client.sync.Client.exec`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    with Exec(lab, guest, order) as running:
        try:
            return running.result(data, None if deadline is None else deadline - time.monotonic())
        except ApiTimeout:
            raise CommandTimeout(guest, order.text, seconds or 0) from None
