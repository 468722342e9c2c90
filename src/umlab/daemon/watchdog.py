"""Notices a guest whose kernel answers no more: it is hung, stopped, or spins with interrupts off.

It is asked for its version, which needs a scheduler that runs.  One question at a time is out, on a socket of
its own, and none while others are answered anyway.  A kernel in the console's ``stop`` still answers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from umlab.daemon.event_log import EventLog
from umlab.daemon.guest_member import Member
from umlab.errors import MconsoleError, MconsoleTimeout, MconsoleUnreachable, RemoteProtocolError
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.command import Command

#: Seconds between an answer and the next question.
ASK_INTERVAL = 10.0
#: Seconds that a question goes unanswered before a guest counts as silent.
SILENCE_LIMIT = 30.0
#: The part of these that a second question has: a daemon that could not run has heard nothing either.
_LAST_CHANCE = 1 / 6
#: Seconds that one question to a silent guest waits, at most.  Its socket takes eleven that nobody reads, and
#: people want to ask as well.
_LONGEST_WAIT = 3600.0
#: Seconds between two tries to reach a console that is not there: a reboot makes a new one.
_RETRY_TIME = 1.0


class Vigil:
    """The watch over one guest.

    Args:
        ask: Asks the guest, waits so many seconds for an answer, and says whether one came.
        heard_at: Returns when the guest has last answered others.
        report: Is given whether the guest answers, and for how many seconds it had not, when that changes.
        interval: Seconds between an answer and the next question.
        limit: Seconds that a question goes unanswered before the guest counts as silent.
        now: Tells the time, as ``heard_at`` does.
        sleep: Waits for so many seconds.

    Attributes:
        answers: Whether the guest does; ``None`` while nobody knows.
    """

    def __init__(
        self,
        ask: Callable[[float], Awaitable[bool]],
        heard_at: Callable[[], float],
        report: Callable[[bool, float], None],
        *,
        interval: float = ASK_INTERVAL,
        limit: float = SILENCE_LIMIT,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.answers: bool | None = None
        self._ask, self._heard_at, self._report = ask, heard_at, report
        self._interval, self._limit = interval, limit
        self._now, self._sleep = now, sleep
        #: When it answered us, or we began to ask.
        self._answered_at = now()

    async def run(self) -> None:
        """Watch for ever.  Cancelled and run again, it goes on and asks at once."""
        while True:
            if self.answers is False:
                await self._await_answer()
            elif await self._question():
                self.answers, self._answered_at = True, self._now()
                while (left := self._last_heard() + self._interval - self._now()) > 0:
                    await self._sleep(left)
            else:
                self.answers = False
                self._report(False, self._now() - self._last_heard())

    def _last_heard(self) -> float:
        return max(self._answered_at, self._heard_at())

    async def _question(self) -> bool:
        last = self._limit * _LAST_CHANCE
        return await self._ask(self._limit - last) or await self._ask(last)

    async def _await_answer(self) -> None:
        since, wait = self._last_heard(), self._limit
        while not await self._ask(wait):
            wait = min(2 * wait, _LONGEST_WAIT)
        self.answers, self._answered_at = True, self._now()
        self._report(True, self._answered_at - since)


class Watchdog:
    """The watch over all guests of a lab.

    Args:
        events: Where silence and its end are published.

    Attributes:
        interval: Seconds between an answer and the next question.
        limit: Seconds that a question goes unanswered before a guest counts as silent.
    """

    def __init__(self, events: EventLog) -> None:
        self.interval, self.limit = ASK_INTERVAL, SILENCE_LIMIT
        self._events = events
        self._watches: dict[str, tuple[Vigil, asyncio.Task[None]]] = {}

    def answers(self, guest: str) -> bool | None:
        """Say whether a guest answers; ``None`` where nobody knows: it boots, or has ended."""
        watch = self._watches.get(guest)
        return None if watch is None else watch[0].answers

    def watch(self, member: Member) -> None:
        """Watch a guest from now on; ask it at once where it is watched already and has rebooted."""
        known = self._watches.get(member.name)
        if known is None:
            vigil = self._vigil(member)
        else:
            vigil = known[0]
            known[1].cancel()
        task = asyncio.create_task(vigil.run())
        member.tasks.add(task)
        task.add_done_callback(member.tasks.discard)
        self._watches[member.name] = vigil, task

    def forget(self, guest: str) -> None:
        """Watch a guest no longer.  Idempotent."""
        watch = self._watches.pop(guest, None)
        if watch is not None:
            watch[1].cancel()

    def _vigil(self, member: Member) -> Vigil:
        # Its own console: no question of anybody's waits behind one that a hung guest does not answer.
        console = AsyncMconsole(member.guest.run.mconsole_path, member.name)
        return Vigil(
            lambda seconds: _ask(console, seconds),
            lambda: member.kernel.heard_at,
            lambda answers, seconds: self._tell(member.name, answers, seconds),
            interval=self.interval,
            limit=self.limit,
        )

    def _tell(self, guest: str, answers: bool, span: float) -> None:
        seconds = round(span, 1)
        if answers:
            self._events.publish({"event": "guest_answers", "guest": guest, "seconds": seconds})
        else:
            self._events.publish({"event": "guest_silent", "guest": guest, "seconds": seconds})


async def _ask(console: AsyncMconsole, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            await console.run(Command("version", left))
        except MconsoleTimeout:
            continue
        except MconsoleUnreachable:
            await asyncio.sleep(min(left, _RETRY_TIME))
            continue
        except (MconsoleError, RemoteProtocolError):
            # Whatever it says, it answers.
            pass
        return True
    return False
