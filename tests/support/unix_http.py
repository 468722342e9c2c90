"""A plain HTTP client over a unix socket, which hides nothing of what the server says."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.deadline import scaled

#: More than any answer of a test.
_LIMIT = 1 << 26


@dataclass(frozen=True)
class Answer:
    """What a server answered; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The class of error that the body names."""
        assert set(self.json) == {"error"}
        assert set(self.json["error"]) == {"class", "message", "fields"}
        name = self.json["error"]["class"]
        assert isinstance(name, str)
        return name


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection."""
    return await asyncio.open_unix_connection(os.fspath(path), limit=_LIMIT)


async def request(
    path: Path,
    method: str,
    target: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request on a connection of its own and return the answer.

    Args:
        path: The server's socket.
        method: Such as ``GET``.
        target: Path and query, as they are sent.
        body: Raw bytes, or a value that is sent as JSON.
        headers: More headers.
    """
    reader, writer = await connect(path)
    try:
        writer.write(request_bytes(method, target, body, {"connection": "close", **(headers or {})}))
        async with asyncio.timeout(scaled(20)):
            return await read_answer(reader)
    finally:
        writer.close()


def request_bytes(
    method: str, target: str, body: Any = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return a request as it is sent."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {target} HTTP/1.1", "host: umlab"]
    if body is not None:
        lines += [f"content-length: {len(raw)}", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def stop_reading(writer: asyncio.StreamWriter) -> None:
    """Leave everything in the kernel from now on, as a client does that hangs."""
    assert isinstance(writer.transport, asyncio.Transport)
    writer.transport.pause_reading()


async def read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    """Read status line and headers."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    status_line, *lines = head.rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(status_line.split()[1]), {name.lower(): value.strip() for name, _, value in pairs}


async def read_chunk(reader: asyncio.StreamReader) -> bytes:
    """Read a piece of a chunked body; empty at its end."""
    size = int(await reader.readline(), 16)
    data = await reader.readexactly(size)
    assert await reader.readexactly(2) == b"\r\n"
    return data


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """Read a whole answer."""
    status, headers = await read_head(reader)
    if headers.get("transfer-encoding") == "chunked":
        body = b""
        while chunk := await read_chunk(reader):
            body += chunk
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Answer(status, headers, body)
