"""Commands in guests: one answer at the end, or a WebSocket with their streams.

The WebSocket's first message is the order, JSON.  Then binary frames are streams, their first byte says which
one: 0 is the input, 1 the output, 2 the errors.  Text frames are control: ``{"end_input": true}``,
``{"signal": NAME}`` and ``{"resize": [ROWS, COLUMNS]}`` from the client; to it go ``{"begun": true}``, when
the command has its place in the guest, ``{"taken": BYTES}``, how much of the input the guest has, and at the
end ``{"status": N}``, or an error.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, WebSocket, WebSocketDisconnect

from umlab._tasks import until_ended
from umlab.api.body import EXEC_BODY, EXEC_ORDER
from umlab.api.connection import RECEIVE_TIME
from umlab.api.console import parse_resize
from umlab.api.duplex import until_one_ends
from umlab.api.error import CLOSE_BASE, STATUS, RequestError, error_bytes, error_name, error_responses
from umlab.api.limit import Limit
from umlab.api.path import GuestName
from umlab.daemon.exec_order import INPUT_WINDOW, ExecOrder
from umlab.daemon.lab import LabService
from umlab.errors import LimitReached, StateError, UmlabError
from umlab.guest.inside.session import FILE_PIECE, Session

#: What begins a binary frame.
STDIN, STDOUT, STDERR = b"\0", b"\1", b"\2"
#: Signals that a command can be sent.
SIGNALS = frozenset({"HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "ALRM", "TERM", "CONT", "STOP", "TSTP"})
#: Controls that wait for the command to begin.
_MAX_EARLY = 64

_ERRORS = (
    *("NoSuchGuest", "LabError", "StateError", "GuestFailed", "CommandTimeout"),
    *("LocalProtocolError", "RemoteProtocolError", "BodyTooLarge"),
)


@dataclass(frozen=True, slots=True)
class ExecAnswer:
    """How a command in a guest ended.

    Attributes:
        status: Its exit status, 128 + n when signal n ended it.
        stdout: Its standard output, untrusted, base64.
        stderr: The same of its standard error.
    """

    status: int
    stdout: str
    stderr: str


def exec_routes(service: LabService, commands: Limit) -> APIRouter:
    """Return the routes.

    Args:
        service: The lab.
        commands: How many there may be in all guests together.
    """
    router = APIRouter(prefix="/v1/guests/{guest}/exec", tags=["guests"])

    @router.post("", responses=error_responses(*_ERRORS), openapi_extra=EXEC_BODY.documented())
    async def run(request: Request, guest: GuestName, body: Annotated[Any, Depends(EXEC_BODY)]) -> ExecAnswer:
        """Run a command in the guest to its end; it is killed when the caller leaves."""
        order = ExecOrder(body.argv, body.script, body.environment, body.directory)
        with commands.place():
            work = asyncio.ensure_future(service.execs.run(guest, order, body.timeout))
            await until_one_ends(_wait(work), _left(request))
        if work.cancelled():
            raise StateError("the caller has left")
        result = work.result()
        stdout, stderr = (base64.b64encode(each).decode() for each in (result.stdout, result.stderr))
        return ExecAnswer(result.status, stdout, stderr)

    @router.websocket("")
    async def execute(socket: WebSocket, guest: str) -> None:
        # Accepted in any case: a browser is told the code of a close, but not the status of a refusal.
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            try:
                with commands.place():
                    conversation = _Conversation(socket)
                    order = await _order(socket)
                    await until_one_ends(conversation.serve(service, guest, order), conversation.listen())
            except (UmlabError, RequestError) as error:
                await socket.send_text(error_bytes(error).decode())
                await socket.close(CLOSE_BASE + STATUS[error_name(error)])

    return router


async def _wait(work: asyncio.Future[Any]) -> None:
    try:
        await asyncio.wait([work])
    finally:
        work.cancel()
        await asyncio.wait([work])


async def _left(request: Request) -> None:
    """Wait until the caller has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _order(socket: WebSocket) -> ExecOrder:
    """Return what the first message asks for.  Raises RequestError, WebSocketDisconnect."""
    try:
        async with asyncio.timeout(RECEIVE_TIME):
            message = await socket.receive()
    except TimeoutError:
        text = f"the order did not arrive within {RECEIVE_TIME:g} seconds"
        raise RequestError("RequestTimeout", text) from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    order: ExecOrder = EXEC_ORDER.parse((message.get("text") or "").encode())
    return order


class _Conversation:
    """One command over one WebSocket."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._session: Session | None = None
        self._early: list[Callable[[Session], None]] = []
        # What came, and how much of all that the guest has taken.
        self._input = bytearray()
        self._taken = 0
        self._input_ended = False
        self._news = asyncio.Event()

    async def serve(self, service: LabService, guest: str, order: ExecOrder) -> None:
        """Run the command and send what it writes, and how it ended."""
        async with service.execs.begun(guest, order) as session:
            for action in self._early:
                action(session)
            self._session = session
            await self._socket.send_text(json.dumps({"begun": True}))
            async with session.hearing.watched():
                await self._converse(session, order)
                status = await session.wait()
        await self._socket.send_text(json.dumps({"status": status}))
        await self._socket.close()

    async def listen(self) -> None:
        """Take input and control until the client leaves.  Raises UmlabError, RequestError."""
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if (data := message.get("bytes")) is not None:
                self._take(data)
            else:
                self._control(message["text"])

    def _take(self, data: bytes) -> None:
        if data[:1] != STDIN:
            raise RequestError("InvalidRequest", "the first byte of a frame of input is 0")
        if self._input_ended:
            raise RequestError("InvalidRequest", "the input has ended")
        self._input += memoryview(data)[1:]
        if len(self._input) > INPUT_WINDOW:
            raise LimitReached(f"the input is more than {INPUT_WINDOW} bytes ahead of the guest")
        self._news.set()

    def _control(self, text: str) -> None:
        action = parse_control(text)
        if action is None:
            self._input_ended = True
            self._news.set()
        elif self._session is not None:
            action(self._session)
        elif len(self._early) < _MAX_EARLY:
            self._early.append(action)
        else:
            raise LimitReached(f"the command has not begun, and {_MAX_EARLY} controls wait for it")

    async def _converse(self, session: Session, order: ExecOrder) -> None:
        """Pass bytes both ways until there is no more output."""
        await until_ended(
            [self._send(session.read_output, STDOUT), self._send(session.read_errors, STDERR)],
            [self._feed(session, order)],
        )

    async def _send(self, read: Callable[[], Awaitable[bytes]], stream: bytes) -> None:
        while data := await read():
            await self._socket.send_bytes(stream + data)

    async def _feed(self, session: Session, order: ExecOrder) -> None:
        """Pass the input on, in pieces as large as what has come meanwhile."""
        while self._input or not self._input_ended:
            await self._news.wait()
            self._news.clear()
            while self._input:
                piece = bytes(self._input[:FILE_PIECE])
                if order.input != "none":
                    await session.write(piece)
                del self._input[: len(piece)]
                self._taken += len(piece)
                await self._socket.send_text(json.dumps({"taken": self._taken}))
        await session.end_input()


def parse_control(text: str) -> Callable[[Session], None] | None:
    """Return what a text frame does with the command; ``None`` for the end of its input.

    Raises RequestError.
    """
    try:
        control: Any = json.loads(text)
    except (ValueError, RecursionError):
        control = None
    match control:
        case {"end_input": True, **rest} if not rest:
            return None
        case {"signal": str(name), **rest} if not rest and name in SIGNALS:
            return lambda session: session.signal(name)
        case {"resize": _, **rest} if not rest:
            rows, columns = parse_resize(text)
            return lambda session: session.resize(rows, columns)
    forms = '{"end_input": true}, {"resize": [ROWS, COLUMNS]} or {"signal": NAME}'
    raise RequestError("InvalidRequest", f"write {forms}, NAME one of {', '.join(sorted(SIGNALS))}")
