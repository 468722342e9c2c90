"""What a daemon sends is read the same in any pieces, and nonsense raises only what is ours."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from umlab.client.decode import refusal
from umlab.client.event import Event, EventParser
from umlab.client.exchange import END, Exchange, Request
from umlab.errors import UmlabError

WORDS = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=12)
EVENTS = st.builds(
    Event,
    st.builds("{:x}-{}".format, st.integers(0, 2**64), st.integers(0, 10**9)),
    WORDS,
    st.dictionaries(WORDS, st.none() | st.integers() | st.text(max_size=20), max_size=4),
)
CUTS = st.lists(st.integers(0, 400), max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at some places."""
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[begin:end] for begin, end in pairwise(places)]


def everything(data: list[bytes]) -> list[Any]:
    """Return all events of an exchange and of the end of its connection."""
    exchange = Exchange("lan", Request("GET", "/"))
    events: list[Any] = []
    try:
        for piece in [*(each for each in data if each), b""]:
            exchange.receive_data(piece)
            while (event := exchange.next_event()) is not None:
                events.append(event)
                if event is END:
                    return [events[0], b"".join(each for each in events if isinstance(each, bytes)), END]
    except UmlabError as error:
        events.append(type(error))
    return events


@given(st.lists(EVENTS, max_size=5), CUTS)
def test_events_are_read_as_they_were_sent(events: list[Event], cuts: list[int]) -> None:
    text = "".join(
        f"id: {each.id}\nevent: {each.kind}\ndata: {json.dumps(each.data)}\n\n" for each in events
    ).encode()
    parser = EventParser("lan")
    assert [event for piece in pieces(text, cuts) for event in parser.receive(piece)] == events


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"data: {}", b"\n\n", b"id: a-1\n"]), max_size=12))
def test_any_stream_of_events_is_read_or_refused(data: list[bytes]) -> None:
    parser = EventParser("lan")
    try:
        for piece in data:
            parser.receive(piece)
    except UmlabError:
        pass


@given(st.binary(max_size=300), CUTS)
def test_response_is_read_the_same_in_any_pieces(body: bytes, cuts: list[int]) -> None:
    data = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    whole = everything([data])
    assert whole[1:] == [body, END]
    assert everything(pieces(data, cuts)) == whole


@given(st.lists(st.binary(max_size=60) | st.sampled_from([b"HTTP/1.1 200 OK\r\n", b"\r\n"]), max_size=12))
def test_any_response_is_read_or_refused(data: list[bytes]) -> None:
    assert everything(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["NoSuchSwitch", "LabError", "MconsoleError", "UmlabError", "annotations", "x"])
REFUSALS = st.fixed_dictionaries(
    {"error": st.fixed_dictionaries({"class": NAMES | JSON, "message": JSON, "fields": JSON}) | JSON}
)


@given(st.integers(300, 599), st.binary(max_size=100) | REFUSALS.map(lambda each: json.dumps(each).encode()))
def test_any_refusal_is_an_error_of_ours(status: int, body: bytes) -> None:
    error = refusal("lan", status, body)
    assert isinstance(error, UmlabError)
    assert str(error)
