"""Captures over a WebSocket: orders, what comes, ends, and everything that is refused."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, unix_connect
from websockets.exceptions import ConnectionClosed

from support.api_lab import ApiLab
from support.capture_file import check_counts, read_capture
from support.capture_switch import CaptureSwitch
from support.deadline import scaled, wait_until_async
from umlab.api import capture as api_capture
from umlab.api import connection
from umlab.engine._pycapture import PyCapture
from umlab.engine.contract import MAX_CAPTURES, CaptureOrder


@pytest.fixture
def switch(api: ApiLab) -> Iterator[CaptureSwitch]:
    """Yield the switch ``lan`` as captures see it."""
    made = CaptureSwitch()
    api.lab.capture_switches.by_name["lan"] = made
    yield made
    made.end()
    made.recorder = None


@contextlib.asynccontextmanager
async def dial(api: ApiLab) -> AsyncIterator[ClientConnection]:
    async with (
        asyncio.timeout(scaled(20)),
        unix_connect(
            os.fspath(api.path), "ws://umlab/v1/captures", compression=None, max_size=None
        ) as socket,
    ):
        yield socket


async def order(socket: ClientConnection, **fields: Any) -> dict[str, Any]:
    """Send an order and return the first answer."""
    await socket.send(json.dumps({"switch": "lan"} | fields))
    answer: dict[str, Any] = json.loads(await socket.recv(decode=True))
    return answer


async def rest_of(socket: ClientConnection) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes and the last text that still come; fails unless the end is a proper one."""
    data, last = b"", "{}"
    with contextlib.suppress(ConnectionClosed):
        while True:
            message = await socket.recv()
            if isinstance(message, bytes):
                data += message
            else:
                last = message
    await socket.wait_closed()
    assert socket.close_code == 1000
    return data, json.loads(last)


async def is_over(switch: CaptureSwitch) -> None:
    await wait_until_async(lambda: switch.open == 1, 10, "nothing but the recorder is left")
    assert not switch.before_stop


async def test_frames_are_sent_until_the_client_asks_for_the_end(api: ApiLab, switch: CaptureSwitch) -> None:
    async with dial(api) as socket:
        started = await order(socket, ports=[1], filter="len > 10", snap_length=100)
        assert started["event"] == "started"
        switch.send(5)
        await socket.send('{"stop": true}')
        data, ended = await rest_of(socket)
    interfaces = read_capture(data)
    check_counts(interfaces)
    assert [(each.name, len(each.packets)) for each in interfaces] == [("lan:1", 5)]
    assert (ended["event"], ended["reason"], ended["frames"], ended["bytes"]) == (
        "ended",
        "asked",
        5,
        len(data),
    )
    await is_over(switch)


async def test_file_is_written_and_told_of(api: ApiLab, switch: CaptureSwitch, tmp_path: Path) -> None:
    path = str(tmp_path / "a.pcapng")
    async with dial(api) as socket:
        started = await order(socket, file=path)
        assert (started["event"], started["file"]) == ("started", path)
        switch.send(5)
        while (progress := json.loads(await socket.recv(decode=True)))["frames"] < 5:
            pass
        assert progress["event"] == "progress"
    # Leaving is an end as good as any.
    await is_over(switch)
    interfaces = read_capture(Path(path))
    check_counts(interfaces)
    assert len(interfaces[0].packets) == 5


@pytest.mark.parametrize("how", ["asked", "left", "broken off", "refused"])
@pytest.mark.parametrize("is_file", [True, False])
async def test_memory_is_free_at_once(
    api: ApiLab, switch: CaptureSwitch, tmp_path: Path, how: str, is_file: bool
) -> None:
    captures: list[weakref.ref[object]] = []
    begin = switch.capture

    def capture(wanted: CaptureOrder) -> PyCapture:
        made = begin(wanted)
        captures.append(weakref.ref(made))
        return made

    switch.capture = capture  # type: ignore[method-assign, assignment]
    gc.disable()
    try:
        async with dial(api) as socket:
            path = tmp_path / "missing" / "a.pcapng" if how == "refused" else tmp_path / "a.pcapng"
            await order(socket, file=str(path) if is_file else None)
            if how == "asked":
                await socket.send('{"stop": true}')
                await rest_of(socket)
            elif how == "broken off":
                switch.send(100)
                socket.transport.abort()
        await is_over(switch)
        await wait_until_async(lambda: captures[0]() is None, 5, "the capture's memory is free")
    finally:
        gc.enable()


async def test_past_is_sent(api: ApiLab, switch: CaptureSwitch) -> None:
    switch.send(5)
    async with dial(api) as socket:
        assert (await order(socket, last=30))["event"] == "started"
        data, ended = await rest_of(socket)
    assert len(read_capture(data)[0].packets) == 5
    assert (ended["reason"], ended["frames"]) == ("saved", 5)


async def test_end_of_the_switch_is_told(api: ApiLab, switch: CaptureSwitch) -> None:
    async with dial(api) as socket:
        await order(socket)
        switch.send(2)
        switch.end()
        data, ended = await rest_of(socket)
    check_counts(read_capture(data))
    assert (ended["reason"], ended["frames"]) == ("switch", 2)


async def test_end_of_the_lab_is_told(api: ApiLab, switch: CaptureSwitch) -> None:
    async with dial(api) as socket:
        await order(socket)
        await api.lab.captures.end_all()
        assert (await rest_of(socket))[1]["reason"] == "lab"


async def test_client_that_is_killed_ends_it(api: ApiLab, switch: CaptureSwitch) -> None:
    async with dial(api) as socket:
        await order(socket)
        assert switch.open == 2
        socket.transport.abort()
        await is_over(switch)


async def test_reader_that_stalls_keeps_his_capture(
    api: ApiLab, switch: CaptureSwitch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALL_TIME", 0.05)
    async with dial(api) as socket:
        await order(socket)
        socket.transport.pause_reading()
        # So many that they fit into no buffer on the way, and not into the capture's memory.
        for _ in range(40):
            switch.send(100)
            await asyncio.sleep(0.01)
        await wait_until_async(lambda: any(each.lost for each in api_counts(switch)), 10, "lost frames")
        # Longer than any other peer may be silent.
        await asyncio.sleep(scaled(0.2))
        assert switch.open == 2
        socket.transport.resume_reading()
        await socket.send('{"stop": true}')
        data, ended = await rest_of(socket)
    interfaces = read_capture(data)
    check_counts(interfaces)
    assert ended["seen"] == ended["frames"] + ended["lost"] == 4000
    assert ended["lost"] == interfaces[0].lost > 0


def api_counts(switch: CaptureSwitch) -> list[Any]:
    return [count for capture in switch._captures.all for count in capture.counts().values()]


class TestRefused:
    @pytest.mark.parametrize(
        ("fields", "name", "text"),
        [
            ({"switch": "wan"}, "NoSuchSwitch", "no switch wan"),
            ({"ports": [9]}, "NoSuchPort", "no port 9"),
            ({"filter": "and"}, "CaptureError", "does not compile"),
            ({"file": "/dev/null/x"}, "CaptureError", "Not a directory"),
            ({"file": "a.pcapng"}, "InvalidRequest", "'a.pcapng' is not the absolute path of a file"),
            ({"file": "/srv/"}, "InvalidRequest", "not the absolute path of a file"),
            ({"snap_length": 13}, "InvalidRequest", "between 14 and 65535"),
            ({"ports": []}, "InvalidRequest", "at least one"),
            ({"ports": [0]}, "InvalidRequest", "port number"),
            ({"ports": ["1"]}, "InvalidRequest", "body.ports.0"),
            ({"last": 0}, "InvalidRequest", "over 0"),
            ({"rotate_size": 1 << 20}, "InvalidRequest", "go with file"),
            ({"file": "/srv/a", "rotate_size": 1}, "InvalidRequest", "rotate_size must be"),
            ({"file": "/srv/a", "files": 3}, "InvalidRequest", "files goes with"),
            ({"file": "/srv/a", "last": 3, "rotate_time": 3}, "InvalidRequest", "not with last"),
            ({"speed": 3}, "InvalidRequest", "body.speed"),
        ],
    )
    async def test_order(
        self, api: ApiLab, switch: CaptureSwitch, fields: dict[str, Any], name: str, text: str
    ) -> None:
        async with dial(api) as socket:
            error = (await order(socket, **fields))["error"]
            assert (error["class"], text in error["message"]) == (name, True), error
            await socket.wait_closed()
            assert socket.close_code == 4000 + {"NoSuchSwitch": 404, "NoSuchPort": 404}.get(name, 422)
        await is_over(switch)

    @pytest.mark.parametrize(
        "message", ["", "{}", "[]", "null", "[" * 100_000, "\ud7ff", b"{}", '{"switch": 3}']
    )
    async def test_what_is_no_order(self, api: ApiLab, switch: CaptureSwitch, message: str | bytes) -> None:
        async with dial(api) as socket:
            await socket.send(message)
            assert json.loads(await socket.recv())["error"]["class"] == "InvalidRequest"
            await socket.wait_closed()
            assert socket.close_code == 4422
        await is_over(switch)

    async def test_order_that_does_not_come(
        self, api: ApiLab, switch: CaptureSwitch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(api_capture, "RECEIVE_TIME", 0.05)
        async with dial(api) as socket:
            assert json.loads(await socket.recv())["error"]["class"] == "RequestTimeout"
            await socket.wait_closed()
            assert socket.close_code == 4408

    async def test_client_that_leaves_without_an_order(
        self, api: ApiLab, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with dial(api):
            pass
        assert "bug" not in caplog.text

    async def test_other_words_in_a_capture(self, api: ApiLab, switch: CaptureSwitch) -> None:
        async with dial(api) as socket:
            await order(socket)
            for message in ("", "{}", '{"stop": false}', '{"stop": true, "x": 1}', "[" * 100_000, b"x"):
                await socket.send(message)
                while isinstance(answer := await socket.recv(), bytes) or "error" not in answer:
                    pass
                assert json.loads(answer)["error"]["class"] == "InvalidRequest"
            assert switch.open == 2

    async def test_one_too_many_of_a_switch(self, api: ApiLab, switch: CaptureSwitch) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(MAX_CAPTURES - 1):
                socket = await stack.enter_async_context(dial(api))
                assert (await order(socket))["event"] == "started"
            async with dial(api) as socket:
                error = (await order(socket))["error"]
                assert (error["class"], error["message"][:11]) == ("StateError", "switch lan:")

    async def test_one_too_many_of_the_lab(
        self, api: ApiLab, switch: CaptureSwitch, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(dial(api)) for _ in range(33)]
            assert json.loads(await sockets[-1].recv())["error"]["class"] == "LimitReached"
            await sockets[-1].wait_closed()
            assert sockets[-1].close_code == 4429

    async def test_a_bug_closes_the_socket_and_is_logged(
        self,
        api: ApiLab,
        switch: CaptureSwitch,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("secret of the house")

        monkeypatch.setattr(switch, "capture", broken)
        async with dial(api) as socket:
            await socket.send('{"switch": "lan"}')
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1011
        assert "secret of the house" in caplog.text
