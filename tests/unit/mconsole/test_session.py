"""The console's session: one request, its fragments, its limit, and a guest that lies."""

from __future__ import annotations

import pytest

from umlab.errors import LocalProtocolError, OversizeMessage, StateError, TruncatedMessage
from umlab.mconsole.session import Answer, MconsoleSession, Silence
from umlab.wire.mconsole import ReplyFragment, parse_request, serialize_reply


def fragment(text: bytes, *, err: int = 0, more: bool = False) -> bytes:
    return serialize_reply(ReplyFragment(err, more, text))


def asked(text: bytes = b"version", *, max_answer: int = 10_000) -> MconsoleSession:
    session = MconsoleSession(max_answer)
    session.request(text, 1000, 500)
    return session


def test_request_is_sent_once_and_sets_the_timer() -> None:
    session = asked(b"proc uptime")
    (datagram,) = session.data_to_send()
    assert parse_request(datagram) == b"proc uptime"
    assert session.data_to_send() == []
    assert session.get_timer() == 1500
    assert session.next_event() is None


def test_fragments_become_one_answer_without_their_nuls() -> None:
    session = asked()
    session.receive_datagram(fragment(b"\n", more=True), 1001)
    session.receive_datagram(fragment(b"1.5 0.1\n", more=True), 1002)
    assert session.next_event() is None
    session.receive_datagram(fragment(b""), 1003)
    assert session.next_event() == Answer(0, b"\n1.5 0.1\n")
    assert session.next_event() is None
    assert session.get_timer() is None


@pytest.mark.parametrize("position", [0, 1, 2])
def test_error_of_any_fragment_makes_the_answer_an_error(position: int) -> None:
    """The C client took the last fragment's number, which is always 0 when there are several."""
    session = asked()
    for at in range(3):
        session.receive_datagram(fragment(b"x", err=-19 if at == position else 0, more=at < 2), 1001)
    assert session.next_event() == Answer(-19, b"xxx")


def test_first_of_several_errors_counts() -> None:
    session = asked()
    session.receive_datagram(fragment(b"a", err=-2, more=True), 1001)
    session.receive_datagram(fragment(b"b", err=1), 1001)
    assert session.next_event() == Answer(-2, b"ab")


def test_error_of_one_request_does_not_stay_for_the_next() -> None:
    session = asked()
    session.receive_datagram(fragment(b"bad", err=1), 1001)
    assert session.next_event() == Answer(1, b"bad")
    session.request(b"go", 1002, 500)
    session.receive_datagram(fragment(b""), 1003)
    assert session.next_event() == Answer(0, b"")


def test_text_reply_of_version_0_is_an_error_answer() -> None:
    session = asked()
    session.receive_datagram(b"ERR Version 0 is not for you", 1001)
    assert session.next_event() == Answer(1, b"Version 0 is not for you")


def test_limit_ends_the_request_with_what_came() -> None:
    session = asked()
    session.receive_datagram(fragment(b"half", more=True), 1001)
    session.handle_timer(1499)
    assert session.next_event() is None
    session.handle_timer(1500)
    assert session.next_event() == Silence(b"half")
    session.handle_timer(2000)
    assert session.next_event() is None


def test_limit_is_not_renewed_by_a_guest_that_drips() -> None:
    session = asked()
    for now_ns in range(1001, 1500):
        session.receive_datagram(fragment(b".", more=True), now_ns)
    session.receive_datagram(fragment(b"last"), 1500)
    event = session.next_event()
    assert event == Silence(b"." * 499)


def test_late_datagram_of_nobody_is_ignored() -> None:
    session = MconsoleSession()
    session.receive_datagram(fragment(b"late"), 5)
    assert session.next_event() is None


def test_answer_without_end_is_refused_at_the_bound() -> None:
    session = asked(max_answer=1000)
    session.receive_datagram(fragment(b"x" * 500, more=True), 1001)
    session.receive_datagram(fragment(b"x" * 500, more=True), 1001)
    with pytest.raises(OversizeMessage) as caught:
        session.receive_datagram(fragment(b"x", more=True), 1001)
    assert (caught.value.size, caught.value.limit) == (1001, 1000)
    assert session.get_timer() is None


def test_broken_datagram_ends_the_request_and_the_next_one_works() -> None:
    session = asked()
    with pytest.raises(TruncatedMessage):
        session.receive_datagram(b"nonsense", 1001)
    assert session.next_event() is None
    session.request(b"version", 1002, 500)
    session.receive_datagram(fragment(b"Linux"), 1003)
    assert session.next_event() == Answer(0, b"Linux")


def test_second_request_before_the_answer_is_refused() -> None:
    session = asked()
    with pytest.raises(StateError, match="one request at a time"):
        session.request(b"help", 1001, 500)
    session.receive_datagram(fragment(b"Linux"), 1001)
    with pytest.raises(StateError):
        session.request(b"help", 1001, 500)


def test_refused_text_leaves_the_session_idle() -> None:
    session = MconsoleSession()
    with pytest.raises(LocalProtocolError):
        session.request(b"x" * 512, 0, 1)
    assert session.get_timer() is None
    assert session.data_to_send() == []


def test_events_compare_by_content_and_show_it() -> None:
    assert repr(Answer(-2, b"no")) == "Answer(err=-2, text=b'no')"
    assert repr(Silence(b"ha")) == "Silence(text=b'ha')"
    assert Answer(0, b"x") != Silence(b"x")
    assert Silence(b"x") != Answer(0, b"x")
    assert Answer(0, b"x") != Answer(1, b"x")
