"""A lab's events as a stream that survives the daemon's restarts, without sockets and clocks.

Source: WHATWG HTML, section 9.2 (server-sent events).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from umlab.client.exchange import Head, Request
from umlab.errors import ApiError

#: Bytes of one event; a daemon that says more is broken.
MAX_EVENT = 1 << 20
#: Seconds between two tries to reach a daemon that is gone, and for how long.
RETRY_INTERVAL = 0.2
RETRY_TIME = 10.0

#: Seconds of silence after which a connection is given up; the daemon says something every 15 seconds.
SILENCE_TIME = 60.0

_ID = re.compile(r"[0-9a-z]+-[0-9]{1,18}")
#: Where a stream of events begins.
Start = Literal["now", "oldest"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a lab.

    Attributes:
        id: Its place in the lab's history.
        kind: Such as ``port_attached``; ``lost`` stands for events that this listener will not get.
        data: Its facts; of ``lost``, the ``count``, ``None`` where nobody knows.
    """

    id: str
    kind: str
    data: dict[str, Any]


class EventParser:
    """The lines of one connection, as they arrive in pieces.

    Args:
        lab: Whose events.
        last_id: The last event of the connection before.

    Attributes:
        last_id: Where a later connection goes on; known before the first event.
    """

    def __init__(self, lab: str, last_id: str = "") -> None:
        self.last_id = last_id
        self._lab = lab
        self._rest = b""
        self._id, self._kind = last_id, ""
        self._data: list[str] = []
        self._size = 0

    def receive(self, data: bytes) -> list[Event]:
        """Return the events that are complete now.

        Raises:
            ApiError: What came is no event.
        """
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT:
            raise ApiError(self._lab, f"an event has over {MAX_EVENT} bytes")
        events = []
        for line in lines:
            if (event := self._line(line.removesuffix(b"\r"))) is not None:
                events.append(event)
        return events

    def _line(self, line: bytes) -> Event | None:
        if not line:
            return self._end()
        name, _, text = line.decode("utf-8", "replace").partition(":")
        text = text.removeprefix(" ")
        if name == "id":
            if not _ID.fullmatch(text):
                raise ApiError(self._lab, f"an event's id is {text[:80]!r}")
            self._id = text
        elif name == "event":
            self._kind = text
        elif name == "data":
            self._size += len(line)
            if self._size > MAX_EVENT:
                raise ApiError(self._lab, f"an event has over {MAX_EVENT} bytes")
            self._data.append(text)
        return None

    def _end(self) -> Event | None:
        self.last_id = self._id
        kind, text = self._kind or "message", "\n".join(self._data)
        self._kind, self._size = "", 0
        self._data.clear()
        if not text:
            return None
        try:
            facts = json.loads(text)
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict):
            raise ApiError(self._lab, f"an event is no JSON object: {text[:80]!r}")
        return Event(self._id, kind, facts)


class EventFeed:
    """One listener, over any number of connections.

    Args:
        lab: Whose events.
        start: ``now``, or ``oldest`` for all that the daemon still has.
        end: The ``last_id`` of the event with which this feed is finished; empty if it never is.
    """

    def __init__(self, lab: str, start: Start = "now", end: str = "") -> None:
        self._lab = lab
        self._start = start
        self._end = end
        self._connected = False
        self._lost_at: float | None = None
        self._parser = EventParser(lab)

    @property
    def last_id(self) -> str:
        """The last event's id, known before there was one; empty before the daemon has answered."""
        return self._parser.last_id

    @property
    def finished(self) -> bool:
        """Whether the last event has come, or its daemon is gone and it never will."""
        if not self._end or not self.last_id:
            return False
        epoch, _, number = self.last_id.rpartition("-")
        end_epoch, _, end_number = self._end.rpartition("-")
        return epoch != end_epoch or int(number) >= int(end_number)

    def request(self) -> Request:
        """Return the request that goes on behind the last event."""
        last_id = self._parser.last_id
        self._parser = EventParser(self._lab, last_id)
        headers = {"accept": "text/event-stream"}
        if last_id:
            headers["last-event-id"] = last_id
        return Request("GET", f"/v1/events?from={self._start}", headers=headers)

    def receive(self, event: Head | bytes) -> list[Event]:
        """Take what comes next of an exchange and return the events that are complete now.

        Raises:
            ApiError: What came is no event.
        """
        if isinstance(event, Head):
            self._connected = True
            self._lost_at = None
            return []
        return self._parser.receive(event)

    def pause(self, now: float) -> float | None:
        """Return how many seconds to wait before the next try, or ``None`` to give up.

        A daemon that was never there is not waited for.

        Args:
            now: Seconds on any clock that does not go back.
        """
        if not self._connected:
            return None
        if self._lost_at is None:
            self._lost_at = now
        return RETRY_INTERVAL if now - self._lost_at < RETRY_TIME else None
