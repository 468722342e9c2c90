"""The HTTP server in the daemon's event loop."""

from __future__ import annotations

import asyncio
import socket

from fastapi import FastAPI
from uvicorn.config import Config
from uvicorn.server import ServerState

from umlab.api.connection import ApiConnection, TerminalConnection

#: Seconds that requests at work have to end when the server stops.
STOP_TIME = 2.0
#: Bytes of one message from a WebSocket.
_MAX_MESSAGE = 128 * 1024
_BACKLOG = 128


class ApiServer:
    """Serves an application on a listening unix socket.

    Args:
        app: The application.
        sock: Bound already; belongs to this object from now on.
    """

    def __init__(self, app: FastAPI, sock: socket.socket) -> None:
        self._sock = sock
        self._state = ServerState()
        self._refused: set[ApiConnection] = set()
        self._server: asyncio.Server | None = None
        self._config = Config(
            app,
            http=ApiConnection,
            ws=TerminalConnection,
            ws_max_size=_MAX_MESSAGE,
            ws_per_message_deflate=False,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            # What strangers send is no warning of ours.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
        )

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._state.connections)

    async def start(self) -> None:
        """Accept connections from now on."""
        self._config.load()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: ApiConnection(self._config, self._state, self._refused), sock=self._sock, backlog=_BACKLOG
        )

    async def stop(self) -> None:
        """Accept no more, let requests at work end, then close every connection.  Idempotent.

        Streams of events end by themselves where their log is closed before.
        """
        server, self._server = self._server, None
        if server is None:
            self._sock.close()
            return
        server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._wait_for_tasks(STOP_TIME)
        for connection in [*self._state.connections, *self._refused]:
            connection.transport.abort()
        # Those who wait for the peer are told that it is gone, those who wait for anything else are not.
        await self._wait_for_tasks(STOP_TIME)
        for task in self._state.tasks:
            task.cancel()
        await self._wait_for_tasks(STOP_TIME)

    async def _wait_for_tasks(self, seconds: float) -> None:
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=seconds)
