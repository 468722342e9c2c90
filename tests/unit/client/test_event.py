"""A stream of events over several connections, without sockets."""

from __future__ import annotations

import pytest

from umlab.client import event as module
from umlab.client.event import Event, EventFeed, EventParser
from umlab.client.exchange import Head
from umlab.errors import ApiError

HEAD = Head(200, {})
TEXT = b'id: e-1\nevent: learned\ndata: {"port_no":1}\n\n: ping\n\nid: e-2\r\nevent: moved\r\ndata:{}\r\n\r\n'
EVENTS = [Event("e-1", "learned", {"port_no": 1}), Event("e-2", "moved", {})]


def test_events_are_the_same_in_any_pieces() -> None:
    assert EventParser("lan").receive(TEXT) == EVENTS
    parser = EventParser("lan")
    pieces = [parser.receive(TEXT[i : i + 1]) for i in range(len(TEXT))]
    assert [event for piece in pieces for event in piece] == EVENTS


def test_data_of_several_lines_is_one_object() -> None:
    assert EventParser("lan").receive(b'data: {"a":\ndata: 1}\n\n') == [Event("", "message", {"a": 1})]


@pytest.mark.parametrize("text", [b"data: x\n\n", b"data: [1]\n\n", b"data: " + b"[" * 50_000 + b"\n\n"])
def test_event_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(ApiError, match="no JSON object"):
        EventParser("lan").receive(text)


@pytest.mark.parametrize("text", [b"data: 12345\ndata: 12345\n", b"x" * 21])
def test_endless_event_is_refused(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVENT", 20)
    with pytest.raises(ApiError, match="over 20 bytes"):
        EventParser("lan").receive(text)


def test_next_connection_goes_on_behind_the_last_event() -> None:
    feed = EventFeed("lan", "oldest")
    first = feed.request()
    assert first.target == "/v1/events?from=oldest"
    assert "last-event-id" not in first.headers
    assert feed.receive(HEAD) == []
    assert feed.receive(TEXT + b"id: e-3\nda") == EVENTS
    assert feed.request().headers["last-event-id"] == "e-2"
    assert feed.receive(HEAD) == []
    # The half event of the first connection is forgotten.
    assert feed.receive(b'id: e-3\ndata: {"b":2}\n\n') == [Event("e-3", "message", {"b": 2})]


def test_place_is_known_before_the_first_event() -> None:
    feed = EventFeed("lan")
    feed.request()
    feed.receive(HEAD)
    assert feed.receive(b"id: e-7\nretry: 1000\n\n") == []
    assert feed.request().headers["last-event-id"] == "e-7"
    # What tells of lost events has no place of its own.
    assert feed.receive(b'event: lost\ndata: {"count":null}\n\n') == [Event("e-7", "lost", {"count": None})]


def test_daemon_is_waited_for_after_it_was_there() -> None:
    feed = EventFeed("lan")
    assert feed.pause(0.0) is None
    feed.receive(HEAD)
    assert feed.pause(100.0) == module.RETRY_INTERVAL
    assert feed.pause(100.0 + module.RETRY_TIME) is None
    # It came back: the next time begins anew.
    feed.receive(HEAD)
    assert feed.pause(500.0) == module.RETRY_INTERVAL
