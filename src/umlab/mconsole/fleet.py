"""One command for many guests at once.

::

    fleet = Fleet({"left": Mconsole("/tmp/uml/left/mconsole"), "right": Mconsole("/tmp/uml/right/mconsole")})
    for outcome in fleet.run(proc("loadavg")).values():
        print(outcome.umid, outcome.output or outcome.error)

What goes wrong with one guest is its `Outcome` and no other guest's affair.  Each guest has the
command's own time limit, counted from its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import time
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from umlab.errors import RemoteProtocolError, UmlabError
from umlab.mconsole.command import Command
from umlab.mconsole.endpoint import (
    CHECK_INTERVAL,
    RECEIVE_SIZE,
    check_listening,
    garbled,
    open_console,
    unreachable,
)
from umlab.mconsole.session import MconsoleSession
from umlab.mconsole.sync import Mconsole

__all__ = ["CONCURRENCY", "AsyncFleet", "Console", "Fleet", "Outcome"]

CONCURRENCY = 64
"""Guests that are asked at the same time; each costs a descriptor meanwhile.

Whatever is asked for, a fleet takes no more than half of the descriptors that its process may have."""

_CHECK_INTERVAL_NS = int(CHECK_INTERVAL * 1e9)


class Console(Protocol):
    """Whatever runs a command in one guest, such as an `umlab.mconsole.aio.AsyncMconsole`."""

    async def run(self, command: Command) -> str:
        """Return the answer's text within the command's time limit; raises `UmlabError` and nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a command in one guest.

    Attributes:
        umid: The guest's name in the fleet.
        output: The answer's text; ``None`` where there is an error.
        error: Why there is no answer, or ``None``.
        seconds: From the guest's turn until this was known.
    """

    umid: str
    output: str | None
    error: UmlabError | None
    seconds: float


class AsyncFleet:
    """Guests that are asked together, by asyncio.

    Args:
        guests: Each guest's console by its name.
        concurrency: Guests that are asked at the same time at most, from 1.
    """

    def __init__(self, guests: Mapping[str, Console], concurrency: int = CONCURRENCY) -> None:
        assert concurrency > 0
        self._guests = dict(guests)
        self._concurrency = concurrency

    async def run(self, command: Command) -> dict[str, Outcome]:
        """Run a command in every guest and return what became of it, in the order of the guests."""
        async with contextlib.aclosing(self.stream(command)) as outcomes:
            come = {outcome.umid: outcome async for outcome in outcomes}
        return {umid: come[umid] for umid in self._guests}

    async def stream(self, command: Command) -> AsyncGenerator[Outcome, None]:
        """Run a command in every guest and yield what becomes of it, as it comes; closing it gives up."""
        turns = asyncio.Semaphore(_bounded(self._concurrency))
        tasks = [
            asyncio.create_task(_ask(turns, umid, console, command)) for umid, console in self._guests.items()
        ]
        try:
            for outcome in asyncio.as_completed(tasks):
                yield await outcome
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _bounded(concurrency: int) -> int:
    return max(1, min(concurrency, os.sysconf("SC_OPEN_MAX") // 2))


async def _ask(turns: asyncio.Semaphore, umid: str, console: Console, command: Command) -> Outcome:
    async with turns:
        begin = time.monotonic()
        try:
            return Outcome(umid, await console.run(command), None, time.monotonic() - begin)
        except UmlabError as error:
            return Outcome(umid, None, error, time.monotonic() - begin)


class Fleet:
    """Guests that are asked together by a caller that blocks, without threads.

    Each request has a socket of its own, so this disturbs nobody who uses the same guests meanwhile.

    Args:
        guests: Each guest's console by its name.
        concurrency: Guests that are asked at the same time at most, from 1.
    """

    def __init__(self, guests: Mapping[str, Mconsole], concurrency: int = CONCURRENCY) -> None:
        assert concurrency > 0
        self._guests = dict(guests)
        self._concurrency = concurrency

    def run(self, command: Command) -> dict[str, Outcome]:
        """Run a command in every guest and return what became of it, in the order of the guests."""
        come = {outcome.umid: outcome for outcome in self.stream(command)}
        return {umid: come[umid] for umid in self._guests}

    def stream(self, command: Command) -> Generator[Outcome, None, None]:
        """Run a command in every guest and yield what becomes of it, as it comes; closing it gives up.

        What the caller does between two outcomes takes nothing from the guests' time.
        """
        waiting, concurrency = iter(self._guests.items()), _bounded(self._concurrency)
        with _Calls(command) as calls:
            while True:
                while len(calls) < concurrency and (turn := next(waiting, None)):
                    calls.begin(turn[0], turn[1].path)
                outcomes = calls.wait()
                if not outcomes:
                    return
                left_ns = time.monotonic_ns()
                yield from outcomes
                calls.away_ns += time.monotonic_ns() - left_ns


class _Calls:
    """Requests that are on their way, each in another guest.

    Attributes:
        away_ns: For how long nobody has looked after them.
    """

    def __init__(self, command: Command) -> None:
        self.away_ns = 0
        self._command = command
        self._poll = select.poll()
        self._calls: dict[int, _Call] = {}
        self._outcomes: list[Outcome] = []

    def __enter__(self) -> _Calls:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in self._calls.values():
            call.close()

    def __len__(self) -> int:
        return len(self._calls)

    def begin(self, umid: str, path: str) -> None:
        begin_ns = self._now_ns()
        try:
            call = _Call(umid, path, self._command, begin_ns)
        except UmlabError as error:
            self._outcomes.append(Outcome(umid, None, error, (self._now_ns() - begin_ns) / 1e9))
        else:
            self._calls[call.fileno()] = call
            self._poll.register(call, select.POLLIN | select.POLLOUT)

    def wait(self) -> list[Outcome]:
        """Return what has become of at least one of them; nothing if there is none."""
        while self._calls and not self._outcomes:
            due_ns = min(call.due_ns for call in self._calls.values())
            # Rounded up, or it would come back a little too early, again and again.
            ready = dict(self._poll.poll(max(0, (due_ns - self._now_ns()) // 1_000_000 + 1)))
            now_ns = self._now_ns()
            for fd, call in list(self._calls.items()):
                if fd in ready or call.due_ns <= now_ns:
                    self._step(fd, call, now_ns)
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def _step(self, fd: int, call: _Call, now_ns: int) -> None:
        output, error = None, None
        try:
            output = call.step(now_ns)
        except UmlabError as caught:
            error = caught
        if output is not None or error is not None:
            self._outcomes.append(Outcome(call.umid, output, error, (now_ns - call.begin_ns) / 1e9))
            self._poll.unregister(fd)
            self._calls.pop(fd).close()
        elif not call.outgoing:
            self._poll.modify(fd, select.POLLIN)

    def _now_ns(self) -> int:
        return time.monotonic_ns() - self.away_ns


class _Call:
    """One request on its way, on a socket of its own, that never waits.

    Attributes:
        umid: The guest's name.
        begin_ns: When its turn came.
        due_ns: When it wants to be stepped at the latest.
        outgoing: What is still to be sent.

    Raises:
        UmlabError: It cannot be begun.
    """

    def __init__(self, umid: str, path: str, command: Command, now_ns: int) -> None:
        self.umid = umid
        self.begin_ns = now_ns
        self._path = path
        self._command = command
        self._session = MconsoleSession()
        self._session.request(command.text, now_ns, int(command.timeout * 1e9))
        self.outgoing = self._session.data_to_send()
        self._socket = open_console(path, umid, command.display)
        self._socket.setblocking(False)
        self._plan(now_ns)

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def step(self, now_ns: int) -> str | None:
        """Do what can be done now and return the answer's text once it is whole.

        It takes one datagram at a time, so that no guest can keep others waiting.

        Raises:
            UmlabError: There will be no answer.
        """
        try:
            with contextlib.suppress(BlockingIOError):
                while self.outgoing:
                    self._socket.send(self.outgoing[0])
                    del self.outgoing[0]
                self._session.receive_datagram(self._socket.recv(RECEIVE_SIZE), now_ns)
                self._plan(now_ns)
        except RemoteProtocolError as error:
            raise garbled(self.umid, self._command.display, self._session.received, error) from error
        except OSError as error:
            raise unreachable(self._path, self.umid, self._command.display, error) from error
        if now_ns >= self.due_ns:
            self._session.handle_timer(now_ns)
            received = None if self.outgoing else self._session.received
            check_listening(self._path, self.umid, self._command.display, received)
            self._plan(now_ns)
        event = self._session.next_event()
        return None if event is None else self._command.result(event, self.umid)

    def close(self) -> None:
        """Give the request up, if it is not answered yet."""
        self._socket.close()

    def _plan(self, now_ns: int) -> None:
        deadline_ns = self._session.get_timer()
        self.due_ns = now_ns + _CHECK_INTERVAL_NS
        if deadline_ns is not None:
            self.due_ns = min(self.due_ns, deadline_ns)
