"""What is told of refusals: once, then ever more rarely, and never more than a trickle."""

from __future__ import annotations

from umlab.daemon.refusal import RefusalBook
from umlab.errors import TransportError
from umlab.transports.contract import Peer

SECOND_NS = 1_000_000_000
ONE, OTHER = Peer(1, 1, 1, None), Peer(2, 2, 2, None)


def told(book: RefusalBook, seconds: float, text: str, peer: Peer | None = ONE) -> str | None:
    return book.note(int(seconds * SECOND_NS), "bess", TransportError(text), peer)


def test_a_day_of_the_same_reason_is_a_few_lines_that_count_the_others() -> None:
    book = RefusalBook()
    lines = [line for second in range(86_400) if (line := told(book, second, "no"))]
    assert lines[:3] == ["no", "no (60 times more)", "no (600 times more)"]
    # After an hour it stays at one in an hour.
    assert set(lines[3:]) == {"no (3600 times more)"}
    assert len(lines) < 30


def test_each_user_and_each_kind_is_told() -> None:
    book = RefusalBook()
    assert told(book, 0, "no") == "no"
    assert told(book, 0, "no", Peer(9, 1, 1, None)) is None
    assert told(book, 0, "no", OTHER) == "no"
    assert told(book, 0, "no", None) == "no"
    assert book.note(0, "daemon", TransportError("no"), ONE) == "no"


def test_who_invents_reasons_gets_few_lines_and_the_rest_is_counted() -> None:
    book = RefusalBook()
    lines = [line for number in range(3600) if (line := told(book, number, f"no {number}"))]
    assert lines[:10] == [f"no {number}" for number in range(10)]
    assert len(lines) < 75
    assert sum(int(line.split("(")[1].split()[0]) for line in lines[10:]) > 3400


def test_reasons_that_are_long_past_are_forgotten() -> None:
    book = RefusalBook()
    for number in range(300):
        assert told(book, number * 60, f"no {number}") == f"no {number}"
    assert told(book, 300 * 60, "no 0") == "no 0"
    assert told(book, 301 * 60, "no 299") == "no 299 (1 times more)"
