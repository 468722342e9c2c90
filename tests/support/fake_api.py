"""A lab daemon's API that says what a test tells it to: Python's own HTTP server on a unix socket."""

from __future__ import annotations

import dataclasses
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class Asked:
    """A request as it arrived; header names in lower case, the body decoded."""

    method: str
    target: str
    headers: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Reply:
    """What is answered: ``body`` as JSON or, being bytes, as it is; an iterable of bytes is streamed.

    ``cut`` ends the connection where that many bytes of the body have been sent.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


def refused(error: str, message: str = "", status: int = 404, **fields: Any) -> Reply:
    """Return the answer that stands for an exception."""
    return Reply({"error": {"class": error, "message": message, "fields": fields}}, status)


class FakeApi:
    """Serves until the block ends.

    Args:
        runtime: The value of XDG_RUNTIME_DIR.
        lab: The lab's name.
        answer: Called in a thread of its own for every request.
    """

    def __init__(self, runtime: Path, lab: str, answer: Callable[[Asked], Reply]) -> None:
        self.requests: list[Asked] = []
        path = runtime / "umlab" / lab / "api.sock"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._path = path
        self._connections: list[socket.socket] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                fake._connections.append(self.connection)
                super().handle_one_request()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

            def _serve(self) -> None:
                data = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked = Asked(self.command, self.path, headers, json.loads(data) if data else None)
                fake.requests.append(asked)
                self.close_connection = True
                try:
                    self._reply(answer(asked))
                except (BrokenPipeError, ConnectionResetError):
                    # The client has left.
                    return

            def _reply(self, reply: Reply) -> None:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                body = reply.body
                if isinstance(body, Iterable) and not isinstance(body, bytes | str | dict | list | tuple):
                    self.send_header("Transfer-Encoding", "chunked")
                    self.end_headers()
                    for piece in body:
                        self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    self.wfile.write(b"0\r\n\r\n")
                    return
                data = body if isinstance(body, bytes) else json.dumps(body, default=_plain).encode()
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: reply.cut])

            do_GET = do_PUT = do_PATCH = do_DELETE = do_POST = _serve

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self._server.server_close()
        self._path.unlink()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(value)
