"""The events of a lab: one ring for listeners of every speed."""

from __future__ import annotations

import asyncio
import json

import pytest

from support.deadline import scaled
from umlab.daemon import event_log
from umlab.daemon.event_log import EventLog


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> EventLog:
    monkeypatch.setattr(event_log, "MAX_KEPT", 4)
    return EventLog()


def publish(log: EventLog, *kinds: str) -> None:
    for kind in kinds:
        log.publish({"event": kind})


def kinds(records: tuple[str, ...]) -> str:
    return "".join(json.loads(record)["event"] for record in records)


def test_events_are_numbered_from_one_and_dated() -> None:
    log = EventLog()
    assert log.next_number == 1
    given: list[dict[str, object]] = []
    log.subscribers.append(given.append)
    publish(log, "a", "b")
    batch = log.since(1)
    assert (batch.lost, batch.first, kinds(batch.records)) == (0, 1, "ab")
    assert [json.loads(record) for record in batch.records] == given
    assert all(isinstance(record["at"], float) for record in given)
    assert log.next_number == 3


def test_each_log_has_an_epoch_of_its_own() -> None:
    assert EventLog().epoch != EventLog().epoch


@pytest.mark.parametrize(
    ("number", "lost", "first", "expected"),
    [
        (-5, 2, 3, "cdef"),
        (1, 2, 3, "cdef"),
        (3, 0, 3, "cdef"),
        (5, 0, 5, "ef"),
        (7, 0, 7, ""),
        (99, 0, 7, ""),
    ],
)
def test_slow_listener_is_told_what_it_has_lost(
    small: EventLog, number: int, lost: int, first: int, expected: str
) -> None:
    publish(small, *"abcdef")
    batch = small.since(number)
    assert (batch.lost, batch.first, kinds(batch.records)) == (lost, first, expected)


def test_listeners_that_are_level_share_a_batch_until_the_next_event(small: EventLog) -> None:
    publish(small, *"ab")
    assert small.since(1).records is small.since(1).records
    publish(small, "c")
    assert kinds(small.since(1).records) == "abc"
    publish(small, *"def")
    assert (small.since(1).lost, kinds(small.since(1).records)) == (2, "cdef")
    assert (small.since(3).lost, kinds(small.since(3).records)) == (0, "cdef")


async def test_wait_returns_at_the_event_and_gathers_those_that_follow_at_once() -> None:
    log = EventLog()
    publish(log, "a")
    await log.wait(1)
    waiting = [asyncio.ensure_future(log.wait(2)) for _ in range(3)]
    await asyncio.sleep(0)
    publish(log, "b", "c")
    assert not any(each.done() for each in waiting)
    await asyncio.wait_for(asyncio.gather(*waiting), scaled(10))
    assert kinds(log.since(2).records) == "bc"


async def test_wait_for_a_later_event_goes_on_over_earlier_ones() -> None:
    log = EventLog()
    waiting = asyncio.ensure_future(log.wait(2))
    await asyncio.sleep(0)
    publish(log, "a")
    await log.wait(1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 3 * event_log.GATHER_TIME)
    publish(log, "b")
    await asyncio.wait_for(waiting, scaled(10))


async def test_listener_that_gives_up_disturbs_no_other() -> None:
    log = EventLog()
    one, other = asyncio.ensure_future(log.wait(1)), asyncio.ensure_future(log.wait(1))
    await asyncio.sleep(0)
    one.cancel()
    publish(log, "a")
    await asyncio.wait_for(other, scaled(10))
    assert one.cancelled()


async def test_close_ends_every_wait_and_what_came_is_still_to_be_read() -> None:
    log = EventLog()
    waiting = asyncio.ensure_future(log.wait(5))
    await asyncio.sleep(0)
    publish(log, "a")
    assert not log.closed
    log.close()
    log.close()
    await asyncio.wait_for(waiting, scaled(10))
    await log.wait(9)
    assert log.closed
    assert kinds(log.since(1).records) == "a"
