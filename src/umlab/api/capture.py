"""Captures as WebSockets: an order comes in, pcapng goes out or to a file; a capture ends with its socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from umlab.api.body import CAPTURE_ORDER
from umlab.api.connection import CAPTURE_PATH, RECEIVE_TIME
from umlab.api.duplex import until_one_ends
from umlab.api.error import CLOSE_BASE, STATUS, RequestError, error_bytes, error_name
from umlab.api.limit import Limit
from umlab.daemon.capture import LabCapture
from umlab.daemon.lab import LabService
from umlab.errors import UmlabError

#: Seconds that a client has to close the socket of a capture that has ended.
CLOSE_TIME = 0.2


def capture_routes(service: LabService, captures: Limit) -> APIRouter:
    """Return the route.

    Args:
        service: The lab.
        captures: How many there may be.
    """
    router = APIRouter()

    @router.websocket(CAPTURE_PATH)
    async def capture(socket: WebSocket) -> None:
        # Accepted in any case: a browser is told the code of a close, but not the status of a refusal.
        await socket.accept()
        with contextlib.suppress(WebSocketDisconnect):
            try:
                with captures.place():
                    request = CAPTURE_ORDER.parse((await _order(socket)).encode())
                    running = await service.capture(request)
                    try:
                        # Both end without an exception: it would refer to what is here, and be referred to,
                        # so that the capture's memory would stay until garbage is looked for.
                        await until_one_ends(_send(socket, running), _listen(socket, running))
                    finally:
                        await running.close()
            except (UmlabError, RequestError) as error:
                await socket.send_text(error_bytes(error).decode())
                await socket.close(CLOSE_BASE + STATUS[error_name(error)])

    return router


async def _order(socket: WebSocket) -> str:
    """Return the first message.  Raises RequestError, WebSocketDisconnect."""
    try:
        async with asyncio.timeout(RECEIVE_TIME):
            message = await _receive(socket)
    except TimeoutError:
        text = f"the order did not arrive within {RECEIVE_TIME:g} seconds"
        raise RequestError("RequestTimeout", text) from None
    return message


async def _receive(socket: WebSocket) -> str:
    """Return a text message, nothing for one of bytes.  Raises WebSocketDisconnect."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message["code"])
    return str(message.get("text") or "")


async def _send(socket: WebSocket, running: LabCapture) -> None:
    """Send everything until the capture has ended, or the client has left."""
    with contextlib.suppress(WebSocketDisconnect):
        async with aclosing(running.items()) as items:
            async for item in items:
                if isinstance(item, bytes):
                    await socket.send_bytes(item)
                else:
                    await socket.send_text(json.dumps(asdict(item)))
        # A client that has to answer a close while the daemon goes may lose what came just before it.
        await asyncio.sleep(CLOSE_TIME)
        await socket.close()


async def _listen(socket: WebSocket, running: LabCapture) -> None:
    """End the capture when the client asks for it, until he leaves."""
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            text = await _receive(socket)
            if is_stop(text):
                running.end("asked")
            else:
                error = RequestError("InvalidRequest", 'write {"stop": true}, or nothing')
                await socket.send_text(error_bytes(error).decode())


def is_stop(text: str) -> bool:
    """Return whether a message asks for the end."""
    try:
        control: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return bool(control == {"stop": True})
