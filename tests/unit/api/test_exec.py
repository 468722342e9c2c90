"""Commands in guests over the API."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed

from support.api_lab import ApiLab
from support.deadline import scaled, wait_until_async
from support.fake_execs import FakeExecs, FakeSession
from umlab.daemon.exec_order import INPUT_WINDOW

PATH = "/v1/guests/left/exec"


@contextlib.asynccontextmanager
async def begin(api: ApiLab, order: Any = None, *, guest: str = "left") -> AsyncIterator[ClientConnection]:
    """Open a WebSocket and send the order."""
    async with (
        asyncio.timeout(scaled(20)),
        unix_connect(
            os.fspath(api.path), f"ws://umlab/v1/guests/{guest}/exec", compression=None, close_timeout=0.2
        ) as socket,
    ):
        if order is not None:
            await socket.send(json.dumps(order))
        yield socket


async def to_end(socket: ClientConnection) -> tuple[dict[bytes, bytes], list[Any], int | None]:
    """Return all streams, all text frames, and the close's code."""
    streams: dict[bytes, bytes] = {b"\1": b"", b"\2": b""}
    texts = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                streams[message[:1]] += message[1:]
            else:
                texts.append(json.loads(message))
    return streams, texts, socket.close_code


def execs(api: ApiLab) -> FakeExecs:
    found = api.lab.execs
    assert isinstance(found, FakeExecs)
    return found


async def session(api: ApiLab) -> FakeSession:
    """Return the first command once it has begun."""
    await wait_until_async(lambda: execs(api).sessions, 10, "the command begins")
    return execs(api).sessions[0]


async def test_output_errors_and_status_come_apart(api: ApiLab) -> None:
    async with begin(api, {"argv": ["echo", "a", "b"]}) as socket:
        streams, texts, code = await to_end(socket)
    assert streams == {b"\1": b"a b\n", b"\2": b"an error\n"}
    assert (texts, code) == ([{"begun": True}, {"status": 3}], 1000)


async def test_input_goes_through_in_large_pieces(api: ApiLab) -> None:
    data = os.urandom(3 << 20)
    async with begin(api, {"argv": ["cat"], "input": "pipe"}) as socket:
        ended = asyncio.create_task(to_end(socket))
        for start in range(0, len(data), 65_536):
            await socket.send(b"\0" + data[start : start + 65_536])
        await socket.send('{"end_input": true}')
        streams, texts, _ = await ended
    assert streams[b"\1"] == data
    assert texts[-1] == {"status": 0}
    assert [each["taken"] for each in texts[1:-1]][-1] == len(data)
    assert len((await session(api)).pieces) < 30


async def test_order_says_where_it_runs(api: ApiLab) -> None:
    order = {
        "argv": ["order"],
        "environment": {"A": "b c"},
        "directory": "/srv",
        "input": "tty",
        "window": [3, 9],
    }
    async with begin(api, order) as socket:
        streams, _, _ = await to_end(socket)
    assert json.loads(streams[b"\1"]) == [{"A": "b c"}, "/srv", "tty", [3, 9]]


async def test_controls_reach_the_command_also_before_it_begins(api: ApiLab) -> None:
    guest = api.lab.guest_by_name["left"]
    guest.state = "booting"
    async with begin(api, {"argv": ["tty"], "input": "tty"}) as socket:
        await socket.send('{"resize": [50, 132]}')
        await socket.send(b"\0x")
        # Nothing runs yet.
        assert not execs(api).sessions
        guest.state = "ready"
        said = b""
        while b"typed" not in said or b"50 132" not in said:
            message = await socket.recv()
            said += message[1:] if isinstance(message, bytes) else b""
        await socket.send('{"signal": "TERM"}')
        assert (await to_end(socket))[1][-1] == {"status": 143}


async def test_command_is_killed_when_its_client_leaves(api: ApiLab) -> None:
    async with begin(api, {"argv": ["sleep"]}):
        running = await session(api)
        assert not running.released
    await wait_until_async(lambda: running.released, 10, "the command is killed")


async def test_client_that_leaves_while_input_waits_is_seen(api: ApiLab) -> None:
    async with begin(api, {"argv": ["sleep"], "input": "pipe"}) as socket:
        running = await session(api)
        for _ in range(40):
            await socket.send(b"\0" + bytes(65_536))
        await socket.send('{"signal": "USR1"}')
        assert (await to_end(socket))[1][-1] == {"status": 138}
    async with begin(api, {"argv": ["sleep"], "input": "pipe"}) as socket:
        await socket.send(b"\0" + bytes(65_536))
        await wait_until_async(lambda: len(execs(api).sessions) == 2, 10, "the command begins")
    running = execs(api).sessions[1]
    await wait_until_async(lambda: running.released, 10, "the command is killed")


async def test_slow_reader_holds_the_command_up(api: ApiLab) -> None:
    async with begin(api, {"argv": ["flood"]}) as socket:
        running = await session(api)
        await wait_until_async(lambda: running._streams[1].full(), 10, "the output waits in the guest")
        assert [len(await socket.recv()) for _ in range(2)] == [len('{"begun": true}'), 65_537]


async def test_client_that_sends_too_much_is_refused(api: ApiLab) -> None:
    async with begin(api, {"argv": ["sleep"], "input": "pipe"}) as socket:
        with contextlib.suppress(ConnectionClosed):
            for _ in range(INPUT_WINDOW // 65_536 + 40):
                await socket.send(b"\0" + bytes(65_536))
        _, texts, code = await to_end(socket)
    assert (texts[-1]["error"]["class"], code) == ("LimitReached", 4429)


@pytest.mark.parametrize(
    ("order", "error", "code"),
    [
        ({"argv": []}, "LocalProtocolError", 4422),
        ({"argv": ["a\0b"]}, "LocalProtocolError", 4422),
        ({"argv": ["a"], "script": "b"}, "LocalProtocolError", 4422),
        ({"argv": ["a"], "environment": {"1x": "2"}}, "LocalProtocolError", 4422),
        ({"argv": ["a"], "directory": "relative"}, "LocalProtocolError", 4422),
        ({"argv": ["a"], "input": "tty", "window": [0, 80]}, "LocalProtocolError", 4422),
        ({"argv": ["a"], "input": "file"}, "InvalidRequest", 4422),
        ({"argv": ["a"], "user": "nobody"}, "InvalidRequest", 4422),
        ({"argv": "ls"}, "InvalidRequest", 4422),
        ([], "InvalidRequest", 4422),
        ({"argv": ["die"]}, "GuestFailed", 4502),
    ],
)
async def test_order_that_cannot_be_is_refused(order: Any, error: str, code: int, api: ApiLab) -> None:
    async with begin(api, order) as socket:
        _, texts, closed = await to_end(socket)
    assert (texts[-1]["error"]["class"], closed) == (error, code)


@pytest.mark.parametrize(
    "message",
    [
        *('{"signal": "WINCH"}', '{"signal": 9}', '{"resize": [0, 1]}', "[", "1", '{"end_input": false}'),
        *('{"end_input": true, "x": 1}', b"", b"\1x", b"\xff"),
    ],
)
async def test_message_that_says_nothing_ends_the_command(message: str | bytes, api: ApiLab) -> None:
    async with begin(api, {"argv": ["sleep"], "input": "pipe"}) as socket:
        running = await session(api)
        await socket.send(message)
        _, texts, code = await to_end(socket)
    assert (texts[-1]["error"]["class"], code) == ("InvalidRequest", 4422)
    assert running.released


async def test_guests_that_cannot_be_asked(api: ApiLab) -> None:
    async with begin(api, {"argv": ["cat"]}, guest="right") as socket:
        _, texts, code = await to_end(socket)
    assert (texts[0]["error"]["class"], code) == ("NoSuchGuest", 4404)
    api.lab.guest_by_name["left"].state = "silent"
    async with begin(api, {"argv": ["cat"]}) as socket:
        _, texts, code = await to_end(socket)
    assert (texts[0]["error"]["class"], code) == ("StateError", 4409)


async def test_too_many_commands_are_refused(api: ApiLab) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(64):
            await stack.enter_async_context(begin(api, {"argv": ["sleep"]}))
        await wait_until_async(lambda: len(execs(api).sessions) == 64, 20, "they begin")
        async with begin(api) as socket:
            _, texts, code = await to_end(socket)
    assert (texts[0]["error"]["class"], code) == ("LimitReached", 4429)


async def test_one_answer_at_the_end(api: ApiLab) -> None:
    answer = await api.call("POST", PATH, {"argv": ["hostile"]})
    assert answer.status == 200
    assert answer.json["status"] == 1
    assert base64.b64decode(answer.json["stdout"]) == b"one\x1b]0;title\x07two\xff\nlast"
    assert base64.b64decode(answer.json["stderr"]) == b"\x1b[2Jbad\n"
    answer = await api.call("POST", PATH, {"script": "echo $A", "environment": {"A": "1"}})
    assert base64.b64decode(answer.json["stdout"]) == b"echo $A"
    answer = await api.call("POST", PATH, {"argv": ["sleep"], "timeout": 0.05})
    assert (answer.status, answer.json["error"]["class"]) == (504, "CommandTimeout")
    answer = await api.call("POST", PATH, {"argv": []})
    assert (answer.status, answer.json["error"]["class"]) == (422, "LocalProtocolError")
    assert all(each.released for each in execs(api).sessions)


async def test_one_answer_is_not_made_for_a_caller_who_left(api: ApiLab) -> None:
    _, writer = await asyncio.open_unix_connection(os.fspath(api.path))
    body = b'{"argv": ["sleep"]}'
    writer.write(
        b"POST %s HTTP/1.1\r\nhost: umlab\r\ncontent-length: %d\r\n\r\n" % (PATH.encode(), len(body)) + body
    )
    running = await session(api)
    writer.close()
    await writer.wait_closed()
    await wait_until_async(lambda: running.released, 10, "the command is killed")
