"""A lab daemon that knows nothing but the ports of its switches and captures, which say what a test wants."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, unix_serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from support.serving_thread import ServingThread
from umlab.capture.order import CaptureProgress
from umlab.daemon.view import PortView

#: What a capture says, in this order: bytes of pcapng, steps, and errors as the API has them.
Messages = Iterable[bytes | CaptureProgress | dict[str, Any]]


def port(port_no: int, guest: str | None = None, umid: str | None = None) -> PortView:
    """Return a port of a switch."""
    return PortView(
        port_no, "daemon", "v3", "up", 1, 0, "root", guest, umid or guest, (), 0, 0, {"rx_frames": 0}
    )


class FakeCaptures(ServingThread):
    """Serves until the block ends.

    Args:
        runtime: The value of XDG_RUNTIME_DIR.
        lab: The lab's name.
        ports: By switch.
        begin: Returns what a capture says when it begins, given its order; one that says ``ended`` is over.
        end: Returns what one says that is told to stop.

    Attributes:
        orders: What was asked for.
    """

    def __init__(
        self,
        runtime: Path,
        lab: str,
        ports: dict[str, list[PortView]],
        begin: Callable[[dict[str, Any]], Messages],
        end: Callable[[dict[str, Any]], Messages] = lambda order: (CaptureProgress("ended", reason="asked"),),
    ) -> None:
        super().__init__()
        self.orders: list[dict[str, Any]] = []
        self._path = runtime / "umlab" / lab / "api.sock"
        self._ports = ports
        self._begin, self._end = begin, end

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve the API."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = str(self._path)
        async with unix_serve(
            self._serve, path, process_request=self._answer, compression=None, close_timeout=0.1
        ):
            yield
        self._path.unlink(missing_ok=True)

    def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        if request.path == "/v1/captures":
            return None
        body: Any
        if request.path.startswith("/v1/labs/"):
            lab = self._path.parent.name
            status, body = HTTPStatus.OK, _lab(lab, list(self._ports))
        else:
            switch = request.path.split("/")[3]
            if switch in self._ports:
                status, body = HTTPStatus.OK, [dataclasses.asdict(each) for each in self._ports[switch]]
            else:
                error = {"class": "NoSuchSwitch", "message": "", "fields": {"name": switch}}
                status, body = HTTPStatus.NOT_FOUND, {"error": error}
        data = json.dumps(body).encode()
        headers = Headers({"content-length": str(len(data)), "connection": "close"})
        return Response(status.value, status.phrase, headers, data)

    async def _serve(self, connection: ServerConnection) -> None:
        order = json.loads(await connection.recv())
        self.orders.append(order)
        try:
            if await _say(connection, self._begin(order)):
                return
            assert json.loads(await connection.recv()) == {"stop": True}
            await _say(connection, self._end(order))
        except ConnectionClosed:
            # The client has had enough.
            return


async def _say(connection: ServerConnection, messages: Messages) -> bool:
    """Say it, and return whether that was the end."""
    for message in messages:
        if isinstance(message, bytes):
            await connection.send(message)
        elif isinstance(message, dict):
            await connection.send(json.dumps(message))
            return True
        else:
            await connection.send(json.dumps(dataclasses.asdict(message)))
            if message.event == "ended":
                return True
    return False


def _lab(name: str, switches: list[str]) -> dict[str, Any]:
    return {
        **{"name": name, "version": "0.1.0", "pid": 1, "keeper_pid": 1, "started_at": 1.0},
        **{"switches": switches, "guests": []},
    }
