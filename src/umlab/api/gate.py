"""What every request passes: bodies in bounds, bugs logged and hidden, answers counted."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from umlab.api.error import STATUS, RequestError, error_name, error_response

_log = logging.getLogger(__name__)

#: Bytes of a request's body.
MAX_BODY = 256 * 1024
_WITH_BODY = {"PUT", "PATCH", "POST", "DELETE"}
_METHODS = {"GET", "HEAD", "OPTIONS"} | _WITH_BODY


class RequestCounts:
    """How requests were answered.

    Attributes:
        by_status: By method and status.
        by_error: By class of error.
    """

    def __init__(self) -> None:
        self.by_status: Counter[tuple[str, int]] = Counter()
        self.by_error: Counter[str] = Counter(dict.fromkeys(STATUS, 0))

    def count(self, error: Exception) -> None:
        """Add an error that was answered."""
        self.by_error[error_name(error)] += 1


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: ASGIApp, counts: RequestCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket."""
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._serve_socket(scope, receive, send)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def refused_with_a_body(message: Message) -> None:
            nonlocal accepted
            if message["type"] == "websocket.close" and not accepted:
                # Ours are accepted in any case: there is no such path.
                error = RequestError("NotFound", "no WebSocket is here")
                self._counts.count(error)
                await error_response(error)(scope, receive, send)
                return
            accepted = True
            await send(message)

        try:
            await self._app(scope, receive, refused_with_a_body)
        except Exception:
            _log.exception("a bug in %s", scope["path"])
            self._counts.by_error["InternalError"] += 1
            with contextlib.suppress(Exception):
                await send({"type": "websocket.close", "code": 1011, "reason": "the daemon has a bug"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = scope["method"] if scope["method"] in _METHODS else "other"
        started = False

        async def counted(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._counts.by_status[method, message["status"]] += 1
            await send(message)

        try:
            if method in _WITH_BODY:
                receive = _replayed(await _read_body(scope, receive), receive)
            await self._app(scope, receive, counted)
        except Exception as error:
            self._counts.count(error)
            if started:
                # Logged by the server, which cuts the connection.
                raise
            if not isinstance(error, RequestError):
                _log.exception("a bug in %s %s", scope["method"], scope["path"])
            await error_response(error)(scope, receive, counted)


async def _read_body(scope: Scope, receive: Receive) -> bytes:
    """Return the whole body.  Raises RequestError."""
    length = dict(scope["headers"]).get(b"content-length", b"0")
    body = bytearray()
    more = int(length) <= MAX_BODY
    while more and len(body) <= MAX_BODY:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if int(length) > MAX_BODY or len(body) > MAX_BODY:
        text = f"a body has at most {MAX_BODY} bytes"
        raise RequestError("BodyTooLarge", text, headers={"connection": "close"})
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    waiting = [body]

    async def replay() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return replay
