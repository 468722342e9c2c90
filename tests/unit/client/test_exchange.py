"""One HTTP exchange without a socket."""

from __future__ import annotations

import json
from typing import Any

import pytest

from umlab.client import exchange as module
from umlab.client.exchange import END, Exchange, Head, Request, Response, ResponseBuilder
from umlab.errors import ApiError, ConnectionLost, NoSuchSwitch

HEAD = b"HTTP/1.1 200 OK\r\nUmlab-End: 7\r\nContent-Length: 5\r\n\r\n"


def outcome(*pieces: bytes) -> list[Any]:
    """Return all events of an exchange that is fed these pieces."""
    exchange = Exchange("lan", Request("GET", "/v1/labs"))
    events = []
    for piece in pieces:
        exchange.receive_data(piece)
        while (event := exchange.next_event()) is not None:
            events.append(event)
            if event is END:
                return events
    return events


def joined(events: list[Any]) -> list[Any]:
    return [events[0], b"".join(each for each in events if isinstance(each, bytes)), events[-1]]


def test_request_is_sent_once() -> None:
    exchange = Exchange("lan", Request("PUT", "/v1/x", b'{"a":1}', {"idempotency-key": "k"}))
    head, _, body = exchange.data_to_send().partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"put /v1/x http/1.1"
    assert {b"host: umlab", b"content-length: 7", b"idempotency-key: k", b"connection: close"} <= {*lines}
    assert body == b'{"a":1}'
    assert exchange.data_to_send() == b""


def test_response_is_the_same_in_any_pieces() -> None:
    whole = HEAD + b"hello"
    expected = [Head(200, {"umlab-end": "7", "content-length": "5"}), b"hello", END]
    assert outcome(whole) == expected
    assert joined(outcome(*(whole[i : i + 1] for i in range(len(whole))))) == expected


def test_stream_without_length_ends_with_the_connection() -> None:
    assert joined(outcome(b"HTTP/1.1 200 OK\r\n\r\nab", b"c", b""))[1:] == [b"abc", END]


@pytest.mark.parametrize("pieces", [(b"",), (b"HTTP/1.1 2", b""), (HEAD, b""), (HEAD + b"hel", b"")])
def test_connection_that_ends_too_early_is_lost(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ConnectionLost, match="lan: the daemon ended"):
        outcome(*pieces)


def test_answer_that_is_not_http_is_refused() -> None:
    with pytest.raises(ApiError, match="not HTTP"):
        outcome(b"SSH-2.0-x\r\n\r\n")


def test_refusal_is_the_daemons_error() -> None:
    body = json.dumps({"error": {"class": "NoSuchSwitch", "message": "", "fields": {"name": "x"}}}).encode()
    head = b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n" % len(body)
    with pytest.raises(NoSuchSwitch) as raised:
        outcome(head, body[:9], body[9:])
    assert raised.value.name == "x"


def test_redirection_is_no_answer() -> None:
    with pytest.raises(ApiError, match="status 307"):
        outcome(b"HTTP/1.1 307 Away\r\nContent-Length: 0\r\n\r\n")


def test_interim_response_is_passed_over() -> None:
    assert outcome(b"HTTP/1.1 103 Early Hints\r\n\r\n" + HEAD + b"hello")[-1] is END


def test_whole_response_is_built_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY", 4)
    builder = ResponseBuilder("lan")
    for event in (Head(200, {"a": "b"}), b"12", b"34"):
        builder.add(event)
    assert builder.response() == Response({"a": "b"}, b"1234")
    with pytest.raises(ApiError, match="over 4 bytes"):
        builder.add(b"5")
