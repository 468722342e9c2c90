"""A guest's consoles: which there are, what a terminal shows, and a terminal as a WebSocket.

The WebSocket carries bytes both ways, and in text frames the size of the screen: to the viewer at first and
whenever it has changed, from the viewer whenever its window has.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, WebSocket, WebSocketDisconnect

from umlab.api.duplex import until_one_ends
from umlab.api.error import RequestError, error_bytes, error_name, error_responses
from umlab.api.limit import Limit
from umlab.api.path import GuestName
from umlab.console.terminal import Role, Size, Terminal, Viewer
from umlab.daemon.lab import LabService
from umlab.daemon.view import ConsoleView, ScreenView
from umlab.errors import LimitReached, StateError, UmlabError

#: Bytes of one frame to a viewer, at most.
_FRAME_SIZE = 64 * 1024
#: A close frame has 125 bytes, two of which are its code.
_REASON_SIZE = 123

ConsoleName = Annotated[str, Path(description="The terminal's name.", examples=["con1"], max_length=16)]

_LOOKUP = error_responses("NoSuchGuest", "LabError")
_SCREEN = error_responses("NoSuchGuest", "NoSuchConsole", "LabError", "StateError")
#: Lines and columns of a window, at most.
_MAX_SIZE = 9999

#: Why a WebSocket is closed.
CLOSE_CODES = {
    1000: "the guest has ended",
    4404: "no such guest, or no such terminal of it",
    4408: "the viewer reads too slowly and has lost output",
    4422: "the query says nothing",
    4429: "too many terminals or viewers",
}
_OTHER_CODES = {"LimitReached": 4429, "StateError": 1000, "InvalidRequest": 4422}


def console_routes(service: LabService, terminals: Limit) -> APIRouter:
    """Return the routes.

    Args:
        service: The lab.
        terminals: How many viewers all terminals have together.
    """
    router = APIRouter(prefix="/v1/guests/{guest}/consoles", tags=["guests"])

    @router.get("", responses=_LOOKUP)
    async def list_consoles(guest: GuestName) -> list[ConsoleView]:
        """List the consoles; those of kind `terminal` are WebSockets below this path."""
        return service.consoles.views(guest)

    @router.get("/{console}/screen", responses=_SCREEN)
    async def show_screen(guest: GuestName, console: ConsoleName) -> ScreenView:
        """Show what a terminal shows."""
        return await service.consoles.screen(guest, console)

    @router.websocket("/{console}")
    async def attach(socket: WebSocket, guest: str, console: str) -> None:
        # Accepted in any case: a browser is told the code of a close, but not the status of a refusal.
        await socket.accept()
        try:
            role, window, picture = parse_query(socket.query_params)
            with terminals.place():
                terminal = await service.consoles.terminal(guest, console)
                if window is not None:
                    terminal.resize(*window)
                viewer = terminal.attach(role, picture=picture)
                try:
                    await until_one_ends(_show(socket, viewer), _type(socket, terminal, viewer))
                finally:
                    terminal.detach(viewer)
        except (UmlabError, RequestError) as error:
            reason = str(error.message if isinstance(error, RequestError) else error)
            text = reason.encode()[:_REASON_SIZE].decode(errors="ignore")
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.close(_OTHER_CODES.get(error_name(error), 4404), text)

    return router


async def _show(socket: WebSocket, viewer: Viewer) -> None:
    """Send output until there is no more, and say why."""
    while output := await viewer.read():
        if isinstance(output, Size):
            await socket.send_text(json.dumps({"resize": output}))
            continue
        for start in range(0, len(output), _FRAME_SIZE):
            await socket.send_bytes(output[start : start + _FRAME_SIZE])
    code = 4408 if viewer.lagged else 1000
    await socket.close(code, CLOSE_CODES[code])


async def _type(socket: WebSocket, terminal: Terminal, viewer: Viewer) -> None:
    """Take input and control until the client leaves."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            if viewer.role == "read":
                raise RequestError("Forbidden", "this viewer only reads: it cannot type or resize")
            if (data := message.get("bytes")) is not None:
                terminal.write(data)
            else:
                terminal.resize(*parse_resize(message["text"]))
        except StateError:
            # The guest has ended: that is told where the output ends.
            continue
        except (LimitReached, RequestError) as error:
            await socket.send_text(error_bytes(error).decode())


def parse_query(query: Mapping[str, str]) -> tuple[Role, tuple[int, int] | None, bool]:
    """Return a viewer's role, its window's size if it says one, and whether it wants a picture of the screen.

    Raises RequestError.
    """
    word = query.get("role", "write")
    role: Role = "read" if word == "read" else "write"
    if word != role:
        raise RequestError("InvalidRequest", "role: write read or write")
    begin = query.get("from", "screen")
    if begin not in ("screen", "now"):
        raise RequestError("InvalidRequest", "from: write screen or now")
    words = [query[name] for name in ("rows", "columns") if name in query]
    if not words:
        return role, None, begin == "screen"
    sizes = [int(word) for word in words if re.fullmatch("[0-9]{1,4}", word)]
    if role == "read" or len(sizes) < 2 or not all(sizes):
        raise RequestError("InvalidRequest", "rows and columns: write both, for a viewer that writes")
    return role, (sizes[0], sizes[1]), begin == "screen"


def parse_resize(text: str) -> tuple[int, int]:
    """Return rows and columns of a text frame.  Raises RequestError."""
    try:
        control: Any = json.loads(text)
    except (ValueError, RecursionError):
        control = None
    match control:
        case {"resize": [int(rows), int(columns)], **rest} if not rest:
            if 1 <= rows <= _MAX_SIZE and 1 <= columns <= _MAX_SIZE:
                return rows, columns
    raise RequestError("InvalidRequest", 'write {"resize": [ROWS, COLUMNS]}, each from 1 to 9999')
