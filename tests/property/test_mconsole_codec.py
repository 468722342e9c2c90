"""The console's codec is its own inverse, and what it reads does not depend on what follows."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from umlab.errors import RemoteProtocolError
from umlab.mconsole.session import Answer, MconsoleSession
from umlab.wire.mconsole import (
    Notification,
    ReplyFragment,
    parse_notification,
    parse_reply,
    parse_request,
    serialize_notification,
    serialize_reply,
    serialize_request,
)

COMMANDS = st.binary(max_size=511).filter(lambda text: b"\0" not in text)
ERRORS = st.integers(-(2**31), 2**31 - 1).filter(lambda err: err != int.from_bytes(b"ERR ", "little"))
FRAGMENTS = st.builds(ReplyFragment, ERRORS, st.booleans(), st.binary(max_size=511))
NOTIFICATIONS = st.builds(Notification, st.integers(-(2**31), 2**31 - 1), st.binary(max_size=511)).filter(
    # Other kinds have no NUL added when they are made, but one is taken off when they are read.
    lambda value: value.kind in (0, 1, 3) or not value.data.endswith(b"\0")
)


@given(COMMANDS, st.binary(max_size=20))
def test_request_is_read_as_made_with_anything_behind_it(text: bytes, trailing: bytes) -> None:
    assert parse_request(serialize_request(text) + trailing) == text


@given(FRAGMENTS, st.binary(max_size=20))
def test_reply_is_read_as_made_with_anything_behind_it(fragment: ReplyFragment, trailing: bytes) -> None:
    assert parse_reply(serialize_reply(fragment) + trailing) == fragment


@given(NOTIFICATIONS)
def test_notification_is_read_as_made(notification: Notification) -> None:
    assert parse_notification(serialize_notification(notification)) == notification


@given(st.lists(st.binary(max_size=511), min_size=1, max_size=40), st.integers(-4000, 1), st.data())
def test_session_joins_any_fragments_and_keeps_the_first_error(
    texts: list[bytes], err: int, data: st.DataObject
) -> None:
    marked = data.draw(st.integers(0, len(texts) - 1))
    session = MconsoleSession()
    session.request(b"proc x", 0, 10)
    for at, text in enumerate(texts):
        assert session.next_event() is None
        fragment = ReplyFragment(err if at == marked else 0, at + 1 < len(texts), text)
        session.receive_datagram(serialize_reply(fragment), 1)
    assert session.next_event() == Answer(err, b"".join(texts))


@given(st.lists(st.binary(max_size=600), max_size=8))
def test_session_takes_any_bytes_and_is_usable_afterwards(datagrams: list[bytes]) -> None:
    session = MconsoleSession(max_answer=1000)
    session.request(b"version", 0, 10)
    for datagram in datagrams:
        with contextlib.suppress(RemoteProtocolError):
            session.receive_datagram(datagram, 1)
    session.handle_timer(10)
    session.next_event()
    session.request(b"version", 20, 10)
    session.receive_datagram(serialize_reply(ReplyFragment(0, False, b"well")), 21)
    assert session.next_event() == Answer(0, b"well")
