"""The lab's events as a stream: resumable, shared, and never waited for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from support.api_lab import ApiLab
from support.deadline import scaled, wait_until_async
from support.unix_http import connect, read_chunk, read_head, request_bytes, stop_reading
from umlab.api import connection, event_stream
from umlab.daemon.event_log import MAX_KEPT


@dataclass(frozen=True)
class Event:
    """One server-sent event."""

    id: str | None
    kind: str | None
    data: Any


class Listener:
    """A client of ``/v1/events``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._text = ""

    async def block(self) -> str:
        """Return the next block of lines."""
        async with asyncio.timeout(scaled(10)):
            while "\n\n" not in self._text:
                chunk = await read_chunk(self.reader)
                if not chunk:
                    raise EOFError
                self._text += chunk.decode()
        block, _, self._text = self._text.partition("\n\n")
        return block

    async def event(self) -> Event:
        """Return the next event."""
        block = await self.block()
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        assert set(fields) <= {"id", "event", "data"}, block
        return Event(fields.get("id"), fields.get("event"), json.loads(fields["data"]))


@contextlib.asynccontextmanager
async def listen(api: ApiLab, query: str = "", **headers: str) -> AsyncIterator[Listener]:
    """Listen; the first block, which has the position, is read."""
    reader, writer = await connect(api.path)
    writer.write(
        request_bytes(
            "GET", f"/v1/events{query}", headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
    )
    try:
        status, head = await read_head(reader)
        assert status == 200
        assert head["content-type"] == "text/event-stream; charset=utf-8"
        listener = Listener(reader, writer)
        assert (await listener.block()).startswith(f"id: {api.lab.events.epoch}-")
        yield listener
    finally:
        writer.close()


def publish(api: ApiLab, *numbers: int) -> None:
    for number in numbers:
        api.lab.events.publish({"event": "port_attached", "port_no": number})


async def test_events_come_as_they_happen(api: ApiLab) -> None:
    publish(api, 1)
    async with listen(api) as listener:
        publish(api, 2, 3)
        second, third = await listener.event(), await listener.event()
        assert second.id == f"{api.lab.events.epoch}-2"
        assert second.kind == "port_attached"
        assert second.data["port_no"] == 2
        assert third.data["port_no"] == 3
        publish(api, 4)
        assert (await listener.event()).data["port_no"] == 4


async def test_kind_is_found_wherever_it_stands(api: ApiLab) -> None:
    async with listen(api) as listener:
        api.lab.events.publish({"port_no": 1, "event": "port_detached"})
        event = await listener.event()
        assert (event.kind, event.data["port_no"]) == ("port_detached", 1)


async def test_listener_may_begin_with_the_oldest(api: ApiLab) -> None:
    publish(api, 1, 2)
    async with listen(api, "?from=oldest") as listener:
        assert [(await listener.event()).data["port_no"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("by", ["header", "query"])
async def test_listener_goes_on_where_it_was(api: ApiLab, by: str) -> None:
    publish(api, 1, 2, 3)
    last = f"{api.lab.events.epoch}-1"
    query, headers = (f"?last_event_id={last}", {}) if by == "query" else ("", {"last_event_id": last})
    async with listen(api, query, **headers) as listener:
        assert [(await listener.event()).data["port_no"] for _ in range(2)] == [2, 3]


async def test_header_counts_where_both_are_given(api: ApiLab) -> None:
    publish(api, 1, 2, 3)
    epoch = api.lab.events.epoch
    async with listen(api, f"?last_event_id={epoch}-1", last_event_id=f"{epoch}-2") as listener:
        assert (await listener.event()).data["port_no"] == 3


async def test_id_of_an_earlier_daemon_is_told(api: ApiLab) -> None:
    publish(api, 1)
    async with listen(api, last_event_id="abc-17") as listener:
        assert await listener.event() == Event(None, "lost", {"count": None})
        assert (await listener.event()).data["port_no"] == 1


async def test_id_from_the_future_is_now(api: ApiLab) -> None:
    publish(api, 1)
    async with listen(api, last_event_id=f"{api.lab.events.epoch}-999") as listener:
        publish(api, 2)
        assert (await listener.event()).data["port_no"] == 2


async def test_lost_events_are_counted(api: ApiLab) -> None:
    publish(api, *range(1, MAX_KEPT + 11))
    async with listen(api, f"?last_event_id={api.lab.events.epoch}-4") as listener:
        assert await listener.event() == Event(None, "lost", {"count": 6})
        for number in range(11, MAX_KEPT + 11):
            assert (await listener.event()).data["port_no"] == number


async def test_bad_positions_are_refused(api: ApiLab) -> None:
    for query in ("last_event_id=x", "last_event_id=-", "from=x", "last_event_id=a-1%0a"):
        answer = await api.call("GET", f"/v1/events?{query}")
        assert (answer.status, answer.error) == (422, "InvalidRequest"), query


async def test_silence_has_a_heartbeat(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT_TIME", 0.05)
    async with listen(api) as listener:
        assert await listener.block() == ": heartbeat"
        assert await listener.block() == ": heartbeat"
        publish(api, 1)
        block = ": heartbeat"
        while block == ": heartbeat":
            block = await listener.block()
        assert "port_attached" in block


async def test_stream_ends_with_the_log(api: ApiLab) -> None:
    async with listen(api) as listener:
        publish(api, 1)
        api.lab.events.close()
        assert (await listener.event()).data["port_no"] == 1
        with pytest.raises(EOFError):
            await listener.event()
    async with listen(api) as listener:
        with pytest.raises(EOFError):
            await listener.event()


async def test_listeners_are_limited_and_leave_nothing(api: ApiLab) -> None:
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:
        # More than a crowd, for whom events are gathered longer.
        listeners = [await stack.enter_async_context(listen(api)) for _ in range(100)]
        answer = await api.call("GET", "/v1/events")
        assert (answer.status, answer.error) == (429, "LimitReached")
        publish(api, 1, 2)
        for listener in listeners:
            assert [(await listener.event()).data["port_no"] for _ in range(2)] == [1, 2]
    await wait_until_async(lambda: not api.server.connections, 10, "every connection is closed")
    await wait_until_async(lambda: asyncio.all_tasks() == before, 10, "nobody is left who would wait")
    async with listen(api) as listener:
        publish(api, 3)
        assert (await listener.event()).data["port_no"] == 3


async def test_listener_that_leaves_at_once_is_sent_no_more(
    api: ApiLab, caplog: pytest.LogCaptureFixture
) -> None:
    publish(api, *range(MAX_KEPT))
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as leaving:
            leaving.connect(str(api.path))
            leaving.sendall(request_bytes("GET", "/v1/events?from=oldest"))
    assert (await api.call("GET", "/v1/labs")).status == 200
    await wait_until_async(lambda: api.server.connections == 0, 5, "the end of all")
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_listener_that_reads_slowly_is_not_cut(api: ApiLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "STALL_TIME", 0.4)
    publish(api, *range(MAX_KEPT))
    last = f'"port_no":{MAX_KEPT - 1},'.encode()
    got = b""
    with socket.socket(socket.AF_UNIX) as slow:
        slow.setblocking(False)
        slow.connect(str(api.path))
        slow.send(request_bytes("GET", "/v1/events?from=oldest"))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(scaled(30)):
            while last not in got[-1000:]:
                piece = await loop.sock_recv(slow, 32 * 1024)
                assert piece, f"cut after {len(got)} bytes"
                got += piece
                await asyncio.sleep(0.1)


async def test_listener_that_does_not_read_delays_nobody_and_is_cut(
    api: ApiLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALL_TIME", 1.0)
    async with listen(api) as stuck, listen(api) as listener:
        stop_reading(stuck.writer)
        number = 0
        # Until the kernel takes no more for it.
        while api.server.connections == 2:
            for _ in range(50):
                number += 1
                api.lab.events.publish({"event": "x", "number": number, "text": "x" * 1000})
            for expected in range(number - 49, number + 1):
                assert (await listener.event()).data["number"] == expected
        assert api.server.connections == 1
        publish(api, 1)
        assert (await listener.event()).data["port_no"] == 1
