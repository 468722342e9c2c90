"""A guest's terminal as a WebSocket: bytes both ways, and control in text frames."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from umlab.api.duplex import until_one_ends
from umlab.api.error import RequestError, error_bytes, error_name
from umlab.api.limit import Limit
from umlab.console.terminal import Terminal, Viewer
from umlab.daemon.lab import LabService
from umlab.errors import LimitReached, StateError, UmlabError

#: Bytes of one frame to a viewer, at most.
_FRAME_SIZE = 64 * 1024
#: A close frame has 125 bytes, two of which are its code.
_REASON_SIZE = 123

#: Why a WebSocket is closed.
CLOSE_CODES = {
    1000: "the guest has ended",
    4404: "no such guest, or no such terminal of it",
    4408: "the viewer reads too slowly and has lost output",
    4429: "too many terminals or viewers",
}
_OTHER_CODES = {"LimitReached": 4429, "StateError": 1000}


def console_routes(service: LabService, terminals: Limit) -> APIRouter:
    """Return the routes.

    Args:
        service: The lab.
        terminals: How many viewers all terminals have together.
    """
    router = APIRouter(prefix="/v1/guests")

    @router.websocket("/{guest}/consoles/{console}")
    async def attach(socket: WebSocket, guest: str, console: str) -> None:
        # Accepted in any case: a browser is told the code of a close, but not the status of a refusal.
        await socket.accept()
        try:
            with terminals.place():
                terminal = service.consoles.terminal(guest, console)
                viewer = terminal.attach()
                try:
                    await until_one_ends(_show(socket, viewer), _type(socket, terminal))
                finally:
                    terminal.detach(viewer)
        except UmlabError as error:
            reason = str(error).encode()[:_REASON_SIZE].decode(errors="ignore")
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):
                await socket.close(_OTHER_CODES.get(error_name(error), 4404), reason)

    return router


async def _show(socket: WebSocket, viewer: Viewer) -> None:
    """Send output until there is no more, and say why."""
    while data := await viewer.read():
        for start in range(0, len(data), _FRAME_SIZE):
            await socket.send_bytes(data[start : start + _FRAME_SIZE])
    code = 4408 if viewer.lagged else 1000
    await socket.close(code, CLOSE_CODES[code])


async def _type(socket: WebSocket, terminal: Terminal) -> None:
    """Take input and control until the client leaves."""
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            if (data := message.get("bytes")) is not None:
                terminal.write(data)
            else:
                terminal.resize(*parse_resize(message["text"]))
        except StateError:
            # The guest has ended: that is told where the output ends.
            continue
        except (LimitReached, RequestError) as error:
            await socket.send_text(error_bytes(error).decode())


def parse_resize(text: str) -> tuple[int, int]:
    """Return rows and columns of a text frame.  Raises RequestError."""
    try:
        control: Any = json.loads(text)
    except (ValueError, RecursionError):
        control = None
    match control:
        case {"resize": [int(rows), int(columns)], **rest} if not rest:
            if 1 <= rows <= 9999 and 1 <= columns <= 9999:
                return rows, columns
    raise RequestError("InvalidRequest", 'write {"resize": [ROWS, COLUMNS]}, each from 1 to 9999')
