"""A guest's terminal over a WebSocket."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import struct
import termios
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from support.api_lab import ApiLab
from support.deadline import scaled, wait_until_async
from umlab.api import connection
from umlab.console import terminal

PATH = "ws://umlab/v1/guests/left/consoles/con1"
TARGET = f"{PATH}?from=now"


@contextlib.asynccontextmanager
async def attach(
    api: ApiLab, target: str = TARGET, *, greeted: bool = True
) -> AsyncIterator[ClientConnection]:
    async with (
        asyncio.timeout(scaled(20)),
        unix_connect(os.fspath(api.path), target, compression=None, max_size=None) as socket,
    ):
        if greeted:
            assert await socket.recv() == '{"resize": [24, 80]}'
        yield socket


async def code_of(socket: ClientConnection) -> int | None:
    """Read until the server closes, and return its code."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await socket.recv()
    await socket.wait_closed()
    return socket.close_code


async def test_bytes_go_both_ways(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    guest.open_terminal()
    os.write(guest.line, b"before\n")
    await wait_until_async(lambda: guest.terminal_log, 10, "output is read")
    async with attach(api, PATH) as socket, attach(api, PATH) as other:
        for each in (socket, other):
            assert b"before" in await each.recv(decode=False)
        assert (await api.call("GET", "/v1/guests/left/consoles")).json[1]["writers"] == 2
        await socket.send(b"ls\xff\n")
        # The line echoes what is typed, to everybody.
        for each in (socket, other):
            echo = b""
            while not echo.endswith(b"\n"):
                piece = await each.recv()
                assert isinstance(piece, bytes)
                echo += piece
            assert echo == b"ls\xff\r\n"
        assert os.read(guest.line, 100) == b"ls\xff\n"
    await wait_until_async(lambda: not guest.open_terminal().count("write"), 10, "viewers are gone")


async def test_window_is_resized(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    async with attach(api) as socket:
        await socket.send(json.dumps({"resize": [50, 132]}))
        size = b""

        def is_resized() -> bool:
            nonlocal size
            size = fcntl.ioctl(guest.line, termios.TIOCGWINSZ, bytes(8))
            return struct.unpack("=4H", size)[:2] == (50, 132)

        await wait_until_async(is_resized, 10, "the window has its size")
        assert await socket.recv() == '{"resize": [50, 132]}'


async def test_viewer_that_only_reads_sees_all_and_does_nothing(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    async with attach(api, f"{PATH}?role=read&from=now") as socket, attach(api) as writer:
        for data in (b"typed", json.dumps({"resize": [1, 1]})):
            await socket.send(data)
            error = json.loads(await socket.recv())["error"]
            assert (error["class"], "only reads" in error["message"]) == ("Forbidden", True)
        (console,) = (await api.call("GET", "/v1/guests/left/consoles")).json[1:]
        assert (console["writers"], console["readers"]) == (1, 1)
        os.write(guest.line, b"seen")
        assert await socket.recv() == b"seen"
        await writer.send(json.dumps({"resize": [5, 7]}))
        assert await socket.recv() == '{"resize": [5, 7]}'
        os.set_blocking(guest.line, False)
        with pytest.raises(BlockingIOError):
            os.read(guest.line, 1)


async def test_window_is_told_with_the_request(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    async with attach(api, f"{TARGET}&rows=33&columns=99", greeted=False) as socket:
        assert await socket.recv() == '{"resize": [33, 99]}'
        assert tuple(os.get_terminal_size(guest.line)) == (99, 33)


@pytest.mark.parametrize(
    "query",
    [
        *("role=x", "from=x", "rows=3", "columns=3", "rows=0&columns=3", "rows=1&columns=10000"),
        *("rows=a&columns=1", "rows=-1&columns=2", "rows=\u0661&columns=2", "role=read&rows=1&columns=2"),
    ],
)
async def test_query_that_says_nothing_is_refused(query: str, api: ApiLab) -> None:
    async with attach(api, f"{PATH}?{quote(query, safe='=&')}", greeted=False) as socket:
        assert await code_of(socket) == 4422
        assert socket.close_reason


async def test_screen_is_shown_as_text(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    guest.open_terminal().resize(3, 20)
    os.write(guest.line, b"\x1b]0;title\x07one\n\x1b[31mtwo \x1b[?1049h\x1b[2;3Hvi\x1b[?25l")
    await wait_until_async(lambda: guest.terminal_log.endswith(b"l"), 10, "output is read")
    answer = await api.call("GET", "/v1/guests/left/consoles/con1/screen")
    assert answer.json == {
        **{"rows": 3, "columns": 20, "lines": ["", "  vi", ""]},
        **{"cursor_row": 2, "cursor_column": 5, "cursor_shown": False, "alternate": True},
    }
    for path in ("/v1/guests/x/consoles/con1/screen", "/v1/guests/left/consoles/con9/screen"):
        assert (await api.call("GET", path)).status == 404
    guest.end()
    assert (await api.call("GET", "/v1/guests/left/consoles/con1/screen")).error == "StateError"


async def test_control_that_says_nothing_is_refused(api: ApiLab) -> None:
    texts = ["", "{}", "[]", '{"resize": [0, 1]}', '{"resize": [1]}', '{"resize": "x"}', "[" * 100_000]
    texts += ['{"resize": [1, 2], "x": 1}', '{"resize": [1.5, 2]}', '{"resize": [10000, 1]}']
    async with attach(api) as socket:
        for text in texts:
            await socket.send(text)
            assert json.loads(await socket.recv())["error"]["class"] == "InvalidRequest", text
        await socket.send(b"still there\n")
        assert b"still" in await socket.recv(decode=False)


async def test_input_that_the_guest_does_not_read_is_refused(api: ApiLab) -> None:
    async with attach(api) as socket:
        await socket.send(b"x" * (terminal.MAX_INPUT + 1))
        error = json.loads(await socket.recv())["error"]
        assert error["class"] == "LimitReached"


async def test_no_such_terminal(api: ApiLab) -> None:
    for guest, console in (("none", "con1"), ("left", "con0"), ("x" * 500, "con1"), ("%ff%0a", "con1")):
        async with attach(api, f"ws://umlab/v1/guests/{guest}/consoles/{console}", greeted=False) as socket:
            assert await code_of(socket) == 4404


async def test_there_is_no_other_socket(api: ApiLab) -> None:
    for target in ("ws://umlab/v1/labs", "ws://umlab/v1/guests/a%2fb/consoles/con1", "ws://umlab/"):
        with pytest.raises(InvalidStatus) as caught:
            async with attach(api, target):
                pass
        response = caught.value.response
        assert response.status_code == 404
        assert json.loads(response.body or b"")["error"]["class"] == "NotFound"


async def test_a_bug_closes_the_socket_and_is_logged(
    api: ApiLab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: str) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(api.lab.consoles, "terminal", broken)
    async with attach(api, greeted=False) as socket:
        assert await code_of(socket) == 1011
        assert socket.close_reason == "the daemon has a bug"
    assert "secret of the house" in caplog.text


async def test_end_of_the_guest_is_told_after_its_last_words(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    async with attach(api) as socket:
        await wait_until_async(lambda: guest.terminal and guest.terminal.count("write"), 10, "it is attached")
        os.write(guest.line, b"bye\n")
        assert await socket.recv() == b"bye\r\n"
        guest.end()
        assert await code_of(socket) == 1000
    async with attach(api, greeted=False) as socket:
        assert await code_of(socket) == 1000


async def test_viewers_are_limited(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "MAX_VIEWERS", 1)
    guest = api.lab.guest_by_name["left"]
    async with attach(api):
        await wait_until_async(lambda: guest.terminal and guest.terminal.count("write"), 10, "it is attached")
        async with attach(api, greeted=False) as socket:
            assert await code_of(socket) == 4429


async def test_terminals_are_limited(api: ApiLab) -> None:
    names = [f"g{number}" for number in range(2)]
    for name in names:
        assert (await api.call("PUT", f"/v1/guests/{name}", {})).status == 200
    async with contextlib.AsyncExitStack() as stack:
        for number in range(64):
            target = f"ws://umlab/v1/guests/g{number % 2}/consoles/con1?from=now"
            await stack.enter_async_context(attach(api, target))
        async with attach(api, greeted=False) as socket:
            assert await code_of(socket) == 4429


async def test_viewer_that_reads_too_slowly_is_told_so(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "MAX_BEHIND", 100_000)
    guest = api.lab.guest_by_name["left"]
    async with attach(api) as socket:
        await wait_until_async(lambda: guest.terminal and guest.terminal.count("write"), 10, "it is attached")
        socket.transport.pause_reading()
        await _print_until(api, lambda: not guest.open_terminal().count("write"))
        socket.transport.resume_reading()
        assert await code_of(socket) == 4408


async def test_viewer_that_does_not_read_at_all_is_cut(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_TIME", 0.3)
    guest = api.lab.guest_by_name["left"]
    async with attach(api) as socket:
        await wait_until_async(lambda: guest.terminal and guest.terminal.count("write"), 10, "it is attached")
        socket.transport.pause_reading()
        await _print_until(api, lambda: not api.server.connections)
        socket.transport.resume_reading()


async def test_flood_of_pings_is_not_kept(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_TIME", 0.3)
    async with attach(api) as socket:
        socket.transport.pause_reading()
        # Each wants a pong, which nobody reads: the server stops reading, and the flood backs up.
        with contextlib.suppress(ConnectionClosed):
            while api.server.connections:
                await socket.ping(os.urandom(8) * 15)
        socket.transport.resume_reading()


async def _print_until(api: ApiLab, done: object) -> None:
    assert callable(done)
    guest = api.lab.guest_by_name["left"]
    os.set_blocking(guest.line, False)
    async with asyncio.timeout(scaled(20)):
        while not done():
            with contextlib.suppress(BlockingIOError):
                os.write(guest.line, b"x" * 4096)
            await asyncio.sleep(0)
