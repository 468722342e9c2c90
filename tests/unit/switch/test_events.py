"""The event queue: bounded for what guests cause, lossless for ports."""

from __future__ import annotations

from umlab.switch.events import (
    MAX_WAITING_EVENTS,
    Event,
    EventQueue,
    EventsLost,
    LinkClosed,
    MacLearned,
)


def learned(number: int) -> MacLearned:
    return MacLearned(number, number.to_bytes(6, "big"), 1)


def filled(extra: int = 0) -> EventQueue:
    queue = EventQueue()
    for number in range(MAX_WAITING_EVENTS + extra):
        queue.put_station(learned(number))
    return queue


def drained_one_by_one(queue: EventQueue) -> list[Event]:
    events = []
    while (event := queue.next()) is not None:
        events.append(event)
    return events


def test_take_gives_everything_once_in_order() -> None:
    queue = EventQueue()
    queue.put_station(learned(1))
    queue.put_certain(LinkClosed(2, 1, 0))
    assert len(queue) == 2
    assert queue.take() == [learned(1), LinkClosed(2, 1, 0)]
    assert queue.take() == []
    assert len(queue) == 0


def test_next_gives_the_oldest_and_none_at_the_end() -> None:
    queue = EventQueue()
    queue.put_station(learned(1))
    queue.put_station(learned(2))
    assert drained_one_by_one(queue) == [learned(1), learned(2)]


def test_overflow_keeps_the_oldest_and_counts_the_rest_at_the_end() -> None:
    queue = filled(extra=3)
    assert len(queue) == MAX_WAITING_EVENTS + 1
    events = queue.take()
    assert events[:-1] == [learned(number) for number in range(MAX_WAITING_EVENTS)]
    assert events[-1] == EventsLost(MAX_WAITING_EVENTS + 2, 3)
    assert queue.take() == []


def test_overflow_read_one_by_one_gives_the_same() -> None:
    assert drained_one_by_one(filled(extra=3)) == filled(extra=3).take()


def test_overflow_is_reported_before_what_comes_after_it() -> None:
    queue = filled(extra=1)
    first = queue.next()
    second = queue.next()
    assert (first, second) == (learned(0), learned(1))
    queue.put_station(learned(9999))
    assert queue.take()[-2:] == [EventsLost(MAX_WAITING_EVENTS, 1), learned(9999)]


def test_full_queue_never_loses_an_event_about_a_port() -> None:
    queue = filled(extra=2)
    queue.put_certain(LinkClosed(5000, 7, 104))
    assert queue.take()[-2:] == [EventsLost(MAX_WAITING_EVENTS + 1, 2), LinkClosed(5000, 7, 104)]
