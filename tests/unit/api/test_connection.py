"""What a connection may do: who has one, how long a request may take, what is too large."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os

import pytest

from support.api_lab import ApiLab
from support.deadline import scaled, wait_until_async
from support.unix_http import connect, read_answer, read_head, request_bytes, stop_reading
from umlab.api import connection, server
from umlab.api.gate import MAX_BODY

_HANDSHAKE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def _exchange(api: ApiLab, *pieces: bytes) -> bytes:
    """Send pieces and return everything until the server closes."""
    reader, writer = await connect(api.path)
    try:
        for piece in pieces:
            writer.write(piece)
        async with asyncio.timeout(scaled(10)):
            return await reader.read()
    finally:
        writer.close()


async def _write_for_ever(writer: asyncio.StreamWriter) -> None:
    for _ in itertools.count():
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_requests_follow_each_other_on_one_connection(api: ApiLab) -> None:
    reader, writer = await connect(api.path)
    for target in ("/v1/labs", "/v1/nothing", "/v1/switches/lan"):
        writer.write(request_bytes("GET", target))
    assert [(await read_answer(reader)).status for _ in range(3)] == [200, 404, 200]
    writer.close()


async def test_another_user_is_told_so_and_no_more(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    # The credentials are the kernel's: what is changed is who we think that we are.
    monkeypatch.setattr(connection, "_allowed_users", lambda: {os.geteuid() + 1})
    for request in (
        request_bytes("GET", "/v1/labs"),
        request_bytes("DELETE", "/v1/labs/demo"),
        request_bytes(
            "GET",
            "/v1/guests/left/consoles/con1",
            headers=_HANDSHAKE,
        ),
        b"no http at all",
    ):
        answer = await _exchange(api, request)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
        assert b'"class":"Forbidden"' in body
    assert api.stops == []
    assert api.lab.guest_by_name["left"].terminal is None


@pytest.mark.parametrize(
    ("method", "changed", "body"),
    [
        ("GET", {"sec-websocket-key": ""}, None),
        ("GET", {"sec-websocket-version": "8"}, None),
        ("POST", {}, None),
        ("GET", {}, b"more"),
        ("GET", {"transfer-encoding": "chunked"}, None),
        ("GET", {f"x-{number}": "" for number in range(200)}, None),
    ],
)
async def test_a_handshake_that_is_none_is_refused(
    api: ApiLab, method: str, changed: dict[str, str], body: bytes | None
) -> None:
    request = request_bytes(method, "/v1/guests/left/consoles/con1", body, {**_HANDSHAKE, **changed})
    head, _, text = (await _exchange(api, request)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b'"class":"MalformedRequest"' in text
    await wait_until_async(lambda: api.server.connections == 0, 5, "the connection's end")


async def test_a_refused_peer_that_stays_is_cut(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_allowed_users", set)
    monkeypatch.setattr(connection, "_LINGER_TIME", 0.1)
    reader, writer = await connect(api.path)
    async with asyncio.timeout(scaled(10)):
        assert (await read_answer(reader)).status == 403
        writer.write(b"x")
        # Its own end stays open: it is the server that leaves.
        with pytest.raises(ConnectionError):
            await _write_for_ever(writer)
    writer.close()


async def test_a_refused_peer_does_not_outlive_the_server(
    api: ApiLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_allowed_users", set)
    monkeypatch.setattr(connection, "_LINGER_TIME", 60)
    reader, writer = await connect(api.path)
    assert (await read_answer(reader)).status == 403
    await api.server.stop()
    async with asyncio.timeout(scaled(10)):
        with pytest.raises(ConnectionError):
            await _write_for_ever(writer)
    writer.close()


async def test_connections_are_limited(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    held = [await connect(api.path) for _ in range(3)]
    for reader, writer in held:
        writer.write(request_bytes("GET", "/v1/labs"))
        assert (await read_answer(reader)).status == 200
    answer = await api.call("GET", "/v1/labs")
    assert (answer.status, answer.error) == (429, "LimitReached")
    held.pop()[1].close()
    await wait_until_async(lambda: api.server.connections == 2, 10, "the connection is closed")
    assert (await api.call("GET", "/v1/labs")).status == 200
    for _, writer in held:
        writer.close()


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /v1/labs HT",
        b"PUT /v1/switches/lan HTTP/1.1\r\nhost: x\r\ncontent-length: 50\r\n\r\n{",
        b"PUT /v1/switches/lan HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\n{",
    ],
)
async def test_a_request_that_does_not_arrive_is_answered_408(
    api: ApiLab, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(connection, "RECEIVE_TIME", 0.1)
    answer = await _exchange(api, begun)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"class":"RequestTimeout"' in answer
    # The second request of a connection has no more time than the first.
    answers = await _exchange(api, request_bytes("GET", "/v1/labs"), begun)
    assert answers.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 408 " in answers


async def test_idle_connections_are_closed(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "RECEIVE_TIME", 0.1)
    assert await _exchange(api) == b""
    monkeypatch.setattr(connection, "IDLE_TIME", 0.1)
    answer = await _exchange(api, request_bytes("GET", "/v1/labs"))
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("method", ["PUT", "POST", "PATCH", "DELETE"])
async def test_bodies_are_limited(api: ApiLab, method: str) -> None:
    target = "/v1/guests/left/stack" if method == "POST" else "/v1/switches/lan"
    answer = await api.call(method, target, b"[" + b" " * MAX_BODY)
    assert (answer.status, answer.error) == (413, "BodyTooLarge")
    piece = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    head = f"{method} {target} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    answers = await _exchange(api, head, piece * (MAX_BODY // 0x8000 + 1))
    assert answers.startswith(b"HTTP/1.1 413 ")
    answer = await api.call(method, target, b"[" + b" " * (MAX_BODY - 1))
    assert answer.status == (200 if method == "DELETE" else 422)


async def test_garbage_is_refused(api: ApiLab, caplog: pytest.LogCaptureFixture) -> None:
    for garbage in (
        b"\0\1\2\r\n\r\n",
        b"GET /v1/labs HTTP/1.1\r\n\r\n",
        b"GET /v1/labs HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 70_000,
        b"PUT /v1/switches/lan HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n",
        b"PUT /v1/switches/lan HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ):
        answer = await _exchange(api, garbage)
        assert answer.startswith(b"HTTP/1.1 400 "), garbage[:60]
        assert b'"class":"MalformedRequest"' in answer
    assert caplog.records == []
    assert (await api.call("GET", "/v1/labs")).status == 200


async def test_a_peer_that_does_not_read_is_cut_and_costs_one_message(
    api: ApiLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALL_TIME", 0.2)
    api.lab.guest_by_name["left"].log += b"x" * (1 << 20)
    reader, writer = await connect(api.path)
    for _ in range(3):
        writer.write(request_bytes("GET", "/v1/guests/left/log?limit=1048576"))
    async with asyncio.timeout(scaled(10)):
        assert (await read_head(reader))[0] == 200
        stop_reading(writer)
        await wait_until_async(lambda: not api.server.connections, 10, "the connection is cut")
    writer.close()
    assert (await api.call("GET", "/v1/labs")).status == 200


async def test_stop_ends_what_still_runs(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STOP_TIME", 0.1)
    # It follows a guest that says nothing more.
    reader, writer = await connect(api.path)
    writer.write(request_bytes("GET", "/v1/guests/left/log?follow=1"))
    assert (await read_head(reader))[0] == 200
    await api.server.stop()
    async with asyncio.timeout(scaled(10)):
        with contextlib.suppress(ConnectionError):
            await reader.read()
    writer.close()
    await api.server.stop()
    with pytest.raises(OSError, match="refused"):
        await connect(api.path)
