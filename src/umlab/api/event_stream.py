"""The lab's events as server-sent events, for many listeners at once.

What all listeners are sent is put together once; each wakes once for it and makes one system call.  A
listener that does not read is not waited for: it finds the events that are still kept, and a count of
those that are not.  Format: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import Response
from pydantic import Field
from starlette.types import Receive, Scope, Send

from umlab.api.limit import Limit
from umlab.daemon.event_log import EventLog

#: Seconds without an event after which a comment is sent.
HEARTBEAT_TIME = 15.0
#: Listeners from which on events are gathered longer before they are sent, and for so many seconds: what
#: a listener costs is the waking, not the events.
CROWD = 10
CROWD_GATHER_TIME = 0.08
#: Events of one message, at most.
_MAX_EVENTS = 512
#: What the id of an event looks like: EPOCH-NUMBER; empty for none.
EventId = Annotated[str, Field(pattern="^([0-9a-f]{1,32}-[0-9]{1,18})?$")]
_KIND = '{"event":"'

#: The answer in the OpenAPI document; the schema is that of one event.
EVENT_RESPONSE: dict[str, Any] = {
    "description": "Events as they happen, until the lab ends.  `lost` is no event of the lab: its `count` "
    "of them are kept no more (`null`: an earlier daemon's, nobody knows how many).",
    "content": {
        "text/event-stream": {
            "schema": {
                "type": "object",
                "required": ["event", "data"],
                "properties": {
                    "id": {"type": "string", "description": "EPOCH-NUMBER."},
                    "event": {"type": "string", "description": "The kind, such as `port_attached`."},
                    "data": {"type": "string", "contentMediaType": "application/json"},
                },
            },
            "example": {
                "id": "18c5f2a1-7",
                "event": "port_attached",
                "data": '{"event":"port_attached","port_no":1}',
            },
        }
    },
}


class EventFeed:
    """Wakes the listeners of a log and puts together what they are sent.

    Args:
        log: The events.
        listeners: How many may listen.
    """

    def __init__(self, log: EventLog, listeners: Limit) -> None:
        self.log = log
        self.listeners = listeners
        #: Grows by one whenever a heartbeat is due.
        self.beats = 0
        self._wakes: set[asyncio.Event] = set()
        self._pump_task: asyncio.Task[None] | None = None
        self._last: tuple[tuple[str, ...], bytes] = ((), b"")

    def join(self, wake: asyncio.Event) -> None:
        """Have an event set whenever there may be something to send."""
        self._wakes.add(wake)
        if self._pump_task is None:
            self._pump_task = asyncio.get_running_loop().create_task(self._pump())

    def leave(self, wake: asyncio.Event) -> None:
        """Undo :meth:`join`."""
        self._wakes.discard(wake)
        if not self._wakes and self._pump_task is not None:
            self._pump_task.cancel()
            self._pump_task = None

    def position(self, last_id: str | None, begin: str) -> tuple[int, bool]:
        """Return where a listener begins.

        Args:
            last_id: The last event that it has, if it was here before.
            begin: ``now`` or ``oldest``: where it begins otherwise.

        Returns:
            Number of the first event to send, and whether ``last_id`` is of an earlier daemon: how many
            events lie between is unknown then.
        """
        if not last_id:
            return (self.log.next_number if begin == "now" else self._oldest()), False
        epoch, _, number = last_id.partition("-")
        if epoch != self.log.epoch:
            return self._oldest(), True
        return min(int(number) + 1, self.log.next_number), False

    def message(self, number: int) -> tuple[bytes, int]:
        """Return what a listener is sent next, and the number to go on with.

        Args:
            number: The first event that it has not seen; there is one.
        """
        batch = self.log.since(number)
        lost = lost_marker(batch.lost) if batch.lost else b""
        records = batch.records[:_MAX_EVENTS]
        # Those who are level with each other share the batch, and so its bytes.
        if records is not self._last[0]:
            self._last = (records, self._format(batch.first, records))
        return lost + self._last[1], batch.first + len(records)

    def hello(self, number: int) -> bytes:
        """Return what a listener is sent first: the id that it may come back with before any event."""
        return f"id: {self.log.epoch}-{number - 1}\nretry: 1000\n\n".encode()

    def _oldest(self) -> int:
        return self.log.since(1).first

    def _format(self, first: int, records: tuple[str, ...]) -> bytes:
        epoch = self.log.epoch
        return "".join(
            [
                f"id: {epoch}-{number}\nevent: {_kind(record)}\ndata: {record}\n\n"
                for number, record in enumerate(records, first)
            ]
        ).encode()

    async def _pump(self) -> None:
        while not self.log.closed:
            try:
                async with asyncio.timeout(HEARTBEAT_TIME):
                    await self.log.wait(self.log.next_number)
            except TimeoutError:
                self.beats += 1
            else:
                if len(self._wakes) >= CROWD:
                    await asyncio.sleep(CROWD_GATHER_TIME)
            for wake in self._wakes:
                wake.set()


class EventStream(Response):
    """An answer that goes on until the listener leaves or the log is closed.

    Args:
        feed: Where the events come from.
        number: The first event to send.
        earlier: Whether the listener has been listening to an earlier daemon.
    """

    media_type = "text/event-stream"

    def __init__(self, feed: EventFeed, number: int, earlier: bool) -> None:
        super().__init__(headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._feed = feed
        self._number = number
        self._earlier = earlier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything."""
        wake = asyncio.Event()
        gone = asyncio.ensure_future(_disconnected(receive))
        gone.add_done_callback(lambda _: wake.set())
        feed = self._feed
        with feed.listeners.place():
            feed.join(wake)
            try:
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                hello = feed.hello(self._number) + (lost_marker(None) if self._earlier else b"")
                await send({"type": "http.response.body", "body": hello, "more_body": True})
                await self._send_events(send, wake, gone)
            finally:
                feed.leave(wake)
                gone.cancel()

    async def _send_events(self, send: Send, wake: asyncio.Event, gone: asyncio.Future[None]) -> None:
        feed, number, beats = self._feed, self._number, self._feed.beats
        while not gone.done():
            if number < feed.log.next_number:
                message, number = feed.message(number)
            elif feed.log.closed:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            elif beats != feed.beats:
                message = b": heartbeat\n\n"
            else:
                await wake.wait()
                wake.clear()
                continue
            beats = feed.beats
            # Held back while the listener does not read; the feed goes on without it.
            await send({"type": "http.response.body", "body": message, "more_body": True})
            # Others come first, and we learn whether the listener has gone: sending alone need not wait.
            await asyncio.sleep(0)


def lost_marker(count: int | None) -> bytes:
    """Return the event that tells of lost ones; ``None`` where nobody knows how many."""
    return f"event: lost\ndata: {json.dumps({'count': count})}\n\n".encode()


def _kind(record: str) -> str:
    if record.startswith(_KIND):
        return record[len(_KIND) :].partition('"')[0]
    kind: Any = json.loads(record)["event"]
    return str(kind)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
