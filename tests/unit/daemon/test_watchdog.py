"""The watch over guests: what it asks when, on a clock of its own, and of a console that may be silent."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

from support.answering_guest import answering_guest
from support.deadline import wait_until_async
from support.kept_lab import KeptLab
from umlab.daemon.watchdog import Vigil
from umlab.testing.fault import answer


class Time:
    """A clock that goes on while somebody sleeps or asks; the script says how each question ends.

    Attributes:
        now: Seconds.
        asked: When questions were asked, and for how long each waited at most.
        told: What was reported.
        heard_at: When others were answered.
    """

    def __init__(self, answers_after: list[float | None]) -> None:
        self.now = 0.0
        self.asked: list[tuple[float, float]] = []
        self.told: list[tuple[bool, float]] = []
        self.heard_at = 0.0
        self._script = answers_after
        self.vigil = Vigil(
            self.ask,
            lambda: self.heard_at,
            lambda answers, seconds: self.told.append((answers, seconds)),
            now=lambda: self.now,
            sleep=self.sleep,
        )

    async def ask(self, seconds: float) -> bool:
        """Answer after the next of the script's spans, never for ``None``; no more of them end the test."""
        if not self._script:
            raise asyncio.CancelledError
        self.asked.append((self.now, seconds))
        span = self._script.pop(0)
        answered = span is not None and span < seconds
        self.now += seconds if span is None or not answered else span
        return answered

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.vigil.run()


async def test_guest_that_answers_is_asked_every_ten_seconds() -> None:
    time = Time([0.5, 0.0, 24.0])
    await time.run()
    assert time.asked == [(0.0, 25.0), (10.5, 25.0), (20.5, 25.0)]
    assert time.told == []
    assert time.vigil.answers is True


async def test_guest_that_answers_others_is_not_asked() -> None:
    time = Time([0.0, 0.0])
    time.heard_at = 35.0
    await time.run()
    assert time.asked == [(0.0, 25.0), (45.0, 25.0)]


async def test_silence_is_told_after_thirty_seconds_and_its_end() -> None:
    time = Time([0.0, None, None, None, 5.0])
    await time.run()
    assert time.asked == [(0.0, 25.0), (10.0, 25.0), (35.0, 5.0), (40.0, 30.0), (70.0, 60.0)]
    assert time.told == [(False, 40.0), (True, 75.0)]
    assert time.vigil.answers is True


async def test_second_question_saves_from_a_false_alarm() -> None:
    time = Time([None, 1.0])
    await time.run()
    assert time.told == []


async def test_silent_guest_is_asked_ever_less() -> None:
    time = Time([None] * 14)
    await time.run()
    assert [wait for _, wait in time.asked[2:]] == [*(30.0 * 2**each for each in range(7)), *[3600.0] * 5]
    assert time.vigil.answers is False


async def test_watch_that_is_begun_again_asks_at_once_and_remembers() -> None:
    time = Time([None, None])
    await time.run()
    assert time.told == [(False, 30.0)]
    time._script += [0.25]
    await time.run()
    assert time.asked[-1] == (30.0, 30.0)
    assert time.told[1:] == [(True, 30.25)]


class TestInALab:
    async def test_guest_falls_silent_and_answers(self, kept: KeptLab) -> None:
        kept.lab.guest_set.watchdog.interval = 0.01
        kept.lab.guest_set.watchdog.limit = 0.3
        silent = threading.Event()
        await kept.lab.put_guest(kept.spec())
        assert kept.lab.guest("g").answers is None
        path = Path(kept.lab.guest("g").mconsole)

        def state() -> bool | None:
            return kept.lab.guest("g").answers

        with answering_guest(path, lambda _: [] if silent.is_set() else answer(b"Linux g")) as console:
            await wait_until_async(lambda: state() is True, 10, "an answer")
            silent.set()
            await wait_until_async(lambda: state() is False, 10, "silence")
            silent.clear()
            await wait_until_async(lambda: state() is True, 10, "another answer")
            assert set(console.requests) == {b"version"}
        told = [each for each in kinds(kept) if each in ("guest_silent", "guest_answers")]
        assert told[:2] == ["guest_silent", "guest_answers"]
        await kept.lab.remove_guest("g")

    async def test_ended_guest_is_watched_no_more(self, kept: KeptLab) -> None:
        kept.lab.guest_set.watchdog.limit = 0.2
        await kept.lab.put_guest(kept.spec())
        await kept.ready()
        await wait_until_async(lambda: kept.lab.guest("g").answers is False, 10, "silence")
        kept.lab.guest_set.find("g").service.guest._group.kill()
        await wait_until_async(lambda: kept.lab.guest("g").state == "ended", 10, "its end")
        assert kept.lab.guest("g").answers is None
        assert kinds(kept)[-1] == "guest_ended"


def kinds(kept: KeptLab) -> list[str]:
    return [record.partition('"event":"')[2].partition('"')[0] for record in kept.lab.events.since(1).records]
