"""Connections to the API's socket: who may have one, how long a request may take to arrive, and what
becomes of a peer that does not read.

Two subclasses of uvicorn's protocols.  An answer goes to the kernel at once or waits here; while one
waits no more is made (``pause_writing`` at the first byte), so a peer that does not read costs one
message, and its connection is torn down after :data:`STALL_TIME`.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import socket
import struct
import termios
from typing import Any, cast

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.http11 import Request

from umlab._peer_credentials import peer_credentials
from umlab.api.error import RequestError, raw_error_response

#: Connections at a time; more are refused.
MAX_CONNECTIONS = 128
#: Seconds for a request to arrive, first byte to last, and for a new connection's first one.
RECEIVE_TIME = 10.0
#: Seconds that a connection may be idle between requests.
IDLE_TIME = 30.0
#: Seconds that a peer may take nothing of what waits for it.
STALL_TIME = 30.0
#: Seconds that a refused peer has to read why.
_LINGER_TIME = 1.0
#: A WebSocket whose peer may stall: a capture waits in its own bounded memory meanwhile,
CAPTURE_PATH = "/v1/captures"
#: and so does a command in its guest.
_EXEC_PATH = re.compile(r"/v1/guests/[^/]+/exec")
_COUNT = struct.Struct("=i")


class _StallWatch:
    """Tears a connection down whose peer takes nothing for too long."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        self.end()
        self._timer = self._loop.call_later(STALL_TIME, self._check, transport, _untaken(transport))

    def _check(self, transport: asyncio.Transport, before: int) -> None:
        if _untaken(transport) < before:
            self.begin(transport)
        else:
            transport.abort()

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class ApiConnection(H11Protocol):
    """One connection.

    Args:
        config: Uvicorn's.
        server_state: Uvicorn's: who is connected.
        refused: Those who are not, while they are told so.
    """

    def __init__(self, config: Config, server_state: ServerState, refused: set[ApiConnection]) -> None:
        super().__init__(config, server_state, {})
        self._refused = refused
        # Uvicorn would take whole seconds only.
        self.timeout_keep_alive = IDLE_TIME  # type: ignore[assignment]
        self._stall = _StallWatch(self.loop)
        #: Runs while a request arrives.
        self._arrival: asyncio.TimerHandle | None = None
        self._upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, or refuse a stranger and a peer too many."""
        stream = cast(asyncio.Transport, transport)
        stream.set_write_buffer_limits(high=0)
        super().connection_made(stream)
        if not _is_allowed(stream):
            self._refuse(RequestError("Forbidden", "this socket serves its own user and root only"))
        elif len(self.connections) > MAX_CONNECTIONS:
            text = f"the daemon has {MAX_CONNECTIONS} connections already"
            self._refuse(RequestError("LimitReached", text))
        else:
            self._arrival = self.loop.call_later(RECEIVE_TIME, self._not_arrived)

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        if self in self._refused:
            return
        super().data_received(data)
        self._watch_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stop_timers()
        self._refused.discard(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Hold answers back: the peer does not read."""
        super().pause_writing()
        self._stall.begin(self.transport)

    def resume_writing(self) -> None:
        """Go on: the peer has read everything."""
        self._stall.end()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Go on with the next request, if some of it is here."""
        super().on_response_complete()
        self._watch_arrival()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over to the WebSocket protocol."""
        self._upgraded = True
        self._stop_timers()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, unless an answer is under way already."""
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            _refuse_raw(self, RequestError("MalformedRequest", msg))
        self.transport.close()

    def _refuse(self, error: RequestError) -> None:
        """Say why without reading, and stay so long that the peer can read it."""
        self.connections.discard(self)
        self._refused.add(self)
        _refuse_raw(self, error)
        self.transport.write_eof()
        self._arrival = self.loop.call_later(_LINGER_TIME, self.transport.abort)

    def _watch_arrival(self) -> None:
        """Have the timer run exactly while a request arrives."""
        begun = self.conn.their_state is h11.SEND_BODY or (
            self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]
        )
        if not begun or self._upgraded or self.transport.is_closing():
            if self._arrival is not None:
                self._arrival.cancel()
                self._arrival = None
        elif self._arrival is None:
            self._arrival = self.loop.call_later(RECEIVE_TIME, self._not_arrived)

    def _not_arrived(self) -> None:
        self._arrival = None
        begun = self.conn.their_state is h11.SEND_BODY or self.conn.trailing_data[0]
        if begun and self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            text = f"the request did not arrive within {RECEIVE_TIME:g} seconds"
            _refuse_raw(self, RequestError("RequestTimeout", text))
        self.transport.close()

    def _stop_timers(self) -> None:
        self._stall.end()
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None


class TerminalConnection(WebSocketsSansIOProtocol):
    """A connection that has become a WebSocket."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._stall = _StallWatch(self.loop)
        #: Whether the peer may read as slowly as he likes, and whether he is heard meanwhile.
        self._is_patient = self._listens_on = False

    def data_received(self, data: bytes) -> None:
        """Take bytes of the handshake or of frames."""
        super().data_received(data)
        if (problem := self.conn.handshake_exc) is not None and not self.transport.is_closing():
            text = f"this opens no WebSocket: {problem.__cause__ or problem}"
            _refuse_raw(self, RequestError("MalformedRequest", text))
            self.transport.close()

    def handle_connect(self, event: Request) -> None:
        """Begin, unless the handshake is none."""
        self.conn.accept(event)
        path = event.path.partition("?")[0]
        # A command is sent signals though nobody reads what it writes, and what a client sends of its input
        # has bounds of its own.
        self._listens_on = _EXEC_PATH.fullmatch(path) is not None
        if path == CAPTURE_PATH or self._listens_on:
            self._is_patient = True
            # Nor does he answer while he does not read.
            self.ping_interval = None
        if self.conn.handshake_exc is None:
            super().handle_connect(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._stall.end()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Hold frames back: the peer does not read.  What it sends waits as a rule, pings above all."""
        super().pause_writing()
        if not self._is_patient:
            self._stall.begin(self.transport)
        if not self._listens_on:
            self.transport.pause_reading()

    def handle_ping(self) -> None:
        """Answer, unless answers would heap up: who does not read does not wait for one."""
        if self._listens_on and self.transport.get_write_buffer_size():
            self.conn.data_to_send()
        else:
            super().handle_ping()

    def resume_writing(self) -> None:
        """Go on: the peer has read everything."""
        self._stall.end()
        super().resume_writing()
        if not self.read_paused:
            self.transport.resume_reading()


def _untaken(transport: asyncio.Transport) -> int:
    """Return how many bytes wait for the peer, here and in the kernel, which counts whole pieces."""
    sock: socket.socket = transport.get_extra_info("socket")
    queued = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(_COUNT.size))
    return transport.get_write_buffer_size() + int(_COUNT.unpack(queued)[0])


def _refuse_raw(connection: ApiConnection | TerminalConnection, error: RequestError) -> None:
    """Count an error and answer it where no request has come to the application."""
    app: Any = connection.config.app
    app.state.count(error)
    connection.transport.write(raw_error_response(error))


def _is_allowed(transport: asyncio.Transport) -> bool:
    """Return whether a peer is our own user or root."""
    sock: socket.socket = transport.get_extra_info("socket")
    return peer_credentials(sock).uid in _allowed_users()


def _allowed_users() -> set[int]:
    return {os.geteuid(), 0}
