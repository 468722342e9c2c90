"""How one guest is, by what its kernel tells on its management console: no agent, no network, no init.

The kernel is asked when somebody wants to know and the last reading has aged, and once for all who want
to know meanwhile; nobody waits long for a guest that is silent.

One that is stopped answers all the same, but without a switch of context; every other one makes some for
each answer.

Source: Linux arch/um/drivers/mconsole_kern.c, ``mconsole_stop``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from umlab._clock import Clock, MonotonicClock
from umlab.daemon.view import GuestVitals
from umlab.errors import MconsoleError, MconsoleProtocolError, MconsoleTimeout, MconsoleUnreachable
from umlab.mconsole.command import Command
from umlab.mconsole.reading import CPU_TIME, LOAD_AVERAGE, MEMORY, UPTIME, VERSION, CpuTime, Reading, Uptime

T = TypeVar("T")

#: Seconds for which a reading is good.
MAX_AGE = 2.0
#: Seconds that a caller waits for a new one.
PATIENCE = 0.5
#: Seconds for which an answer may be late before a guest counts as silent: machines are busy at times.
SILENT_AFTER = 2.0
#: Seconds in which a kernel that runs is done with what an answer makes it do.
PAUSE = 0.1
#: Seconds for the answer to one question; a silent guest is asked once in twice the time, and so on,
#: because its socket takes eleven questions that nobody reads.
ASK_TIMEOUT = 5.0
LONGEST_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a kernel has told.

    Attributes:
        at_ns: When.
        view: That, to be shown.
        cpu_time: What its processor has done since the boot.
    """

    at_ns: int
    view: GuestVitals
    cpu_time: CpuTime | None


class Vitals:
    """How one guest is.

    Args:
        umid: The guest.
        ask: Asks its kernel, which has so many seconds for its answer; raises MconsoleError.
        clock: Tells the time.
    """

    def __init__(
        self, umid: str, ask: Callable[[Command, float], Awaitable[str]], clock: Clock | None = None
    ) -> None:
        self._umid = umid
        self._ask = ask
        self._clock = clock or MonotonicClock()
        self._facts: _Facts | None = None
        self._state = "?"
        self._looking: asyncio.Task[None] | None = None
        self._began_ns = self._asked_ns = 0
        self._understood = self._nonsense = False
        self._looked_ns: int | None = None
        self._timeout = ASK_TIMEOUT

    async def now(self) -> GuestVitals:
        """Return how the guest is, at most some seconds ago where it answers."""
        if self._looking is None and not self._is_fresh():
            self._looking = asyncio.create_task(self._look())
            self._began_ns = self._asked_ns = self._clock.now_ns()
        if self._looking is not None:
            left = PATIENCE - (self._clock.now_ns() - self._began_ns) / 1e9
            await asyncio.wait([self._looking], timeout=max(0, left))
        return self._view()

    async def once(self, timeout: float) -> GuestVitals:  # noqa: ASYNC109
        """Return how the guest is right now, for one who is alone and has time.

        Args:
            timeout: Seconds for each of its answers.
        """
        self._timeout = timeout
        await self._look()
        return self._view()

    async def close(self) -> None:
        """End what is at work."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)

    def _is_fresh(self) -> bool:
        return (
            self._looked_ns is not None and self._clock.now_ns() - self._looked_ns < MAX_AGE * 1_000_000_000
        )

    def _view(self) -> GuestVitals:
        state = self._state
        if self._looking is not None and self._clock.now_ns() - self._asked_ns >= SILENT_AFTER * 1e9:
            state = "silent"
        if self._facts is None:
            return GuestVitals(self._umid, state)
        age = (self._clock.now_ns() - self._facts.at_ns) / 1e9
        return replace(self._facts.view, state=state, age=age)

    async def _look(self) -> None:
        try:
            self._facts = await self._read()
            self._state, self._timeout = self._facts.view.state, ASK_TIMEOUT
        except MconsoleTimeout:
            self._state, self._timeout = "silent", min(2 * self._timeout, LONGEST_TIMEOUT)
        except MconsoleUnreachable:
            self._state, self._timeout = "unreachable", ASK_TIMEOUT
        finally:
            self._looking = None
            self._looked_ns = self._clock.now_ns()

    async def _read(self) -> _Facts:
        """Ask for everything.  Raises MconsoleTimeout, MconsoleUnreachable."""
        self._understood = self._nonsense = False
        uptime = await self._value(UPTIME)
        cpu_time = await self._value(CPU_TIME)
        load = await self._value(LOAD_AVERAGE)
        memory = await self._value(MEMORY)
        earlier = self._facts
        if earlier is not None and not _is_later(uptime, earlier.view.uptime):
            earlier = None
        release = earlier.view.release if earlier is not None else None
        if release is None and (version := await self._value(VERSION)) is not None:
            release = version.release
        state = "garbled" if self._nonsense and not self._understood else "answers"
        if cpu_time is not None and cpu_time.switches is not None:
            await asyncio.sleep(PAUSE)
            later = await self._value(CPU_TIME)
            if later is not None and later.switches == cpu_time.switches:
                state = "stopped"
        view = GuestVitals(
            name=self._umid,
            state=state,
            release=release,
            uptime=None if uptime is None else uptime.seconds,
            load=None if load is None else (load.one, load.five, load.fifteen),
            memory_total=None if memory is None else memory.total,
            memory_used=None if memory is None else max(0, memory.total - memory.available),
            cpu=_share(None if earlier is None else earlier.cpu_time, cpu_time),
        )
        return _Facts(self._clock.now_ns(), view, cpu_time)

    async def _value(self, reading: Reading[T]) -> T | None:
        """Return what a kernel answers, ``None`` where it does not serve it or makes no sense."""
        self._asked_ns = self._clock.now_ns()
        try:
            value = reading.value(await self._ask(reading.command, self._timeout), self._umid)
        except (MconsoleTimeout, MconsoleUnreachable):
            raise
        except MconsoleProtocolError:
            self._nonsense = True
            return None
        except MconsoleError:
            return None
        self._understood = True
        return value


def _is_later(uptime: Uptime | None, earlier: float | None) -> bool:
    """Say whether a kernel has not rebooted between two readings."""
    return uptime is not None and earlier is not None and uptime.seconds >= earlier


def _share(before: CpuTime | None, after: CpuTime | None) -> float | None:
    """Return the share of the time between two readings, or since the boot, that was work."""
    if after is None:
        return None
    busy, whole = after.busy, _whole(after)
    if before is not None:
        busy, whole = busy - before.busy, whole - _whole(before)
    # Ticks that a kernel has caught up on: it may give them back.
    return min(1.0, max(0.0, busy / whole)) if whole > 0 else 0.0


def _whole(time: CpuTime) -> float:
    return time.busy + time.idle + time.waiting + time.stolen
