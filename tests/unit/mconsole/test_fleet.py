"""One command for many guests: blocking and asyncio alike, against simulated guests that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until, wait_until_async
from umlab.errors import (
    LocalProtocolError,
    MconsoleError,
    MconsoleProtocolError,
    MconsoleTimeout,
    MconsoleUnreachable,
    UmlabError,
)
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.command import Command, log, proc, remove, version
from umlab.mconsole.fleet import AsyncFleet, Fleet, Outcome
from umlab.mconsole.sync import Mconsole
from umlab.testing.fault import Fault, Step, dies, endless, garbage, late, silent, wrong_length
from umlab.testing.guest import SimulatedGuests

Paths = dict[str, Path]


class Shell:
    """One of the two fleets, called in the same way."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run(self, paths: Paths, command: Command, concurrency: int = 64) -> dict[str, Outcome]:
        if self.kind == "blocking":
            return Fleet(_blocking(paths), concurrency).run(command)
        return asyncio.run(AsyncFleet(_asyncio(paths), concurrency).run(command))

    def take(self, count: int, paths: Paths, command: Command) -> list[str]:
        """Return the names of the first outcomes, and close the stream after them."""
        if self.kind == "blocking":
            with contextlib.closing(Fleet(_blocking(paths)).stream(command)) as outcomes:
                return [next(outcomes).umid for _ in range(count)]

        async def take() -> list[str]:
            async with contextlib.aclosing(AsyncFleet(_asyncio(paths)).stream(command)) as outcomes:
                names = [(await anext(outcomes)).umid for _ in range(count)]
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return names

        return asyncio.run(take())


def _blocking(paths: Paths) -> dict[str, Mconsole]:
    return {umid: Mconsole(os.fspath(path), umid) for umid, path in paths.items()}


def _asyncio(paths: Paths) -> dict[str, AsyncMconsole]:
    return {umid: AsyncMconsole(os.fspath(path), umid) for umid, path in paths.items()}


@pytest.fixture(params=["blocking", "asyncio"])
def fleet(request: pytest.FixtureRequest) -> Shell:
    return Shell(request.param)


@pytest.fixture
def guests(short_dir: Path) -> Iterator[SimulatedGuests]:
    with SimulatedGuests(short_dir) as guests:
        yield guests


def _add(guests: SimulatedGuests, umids: Iterable[str], fault: Fault | None = None) -> Paths:
    return {umid: guests.add(umid, nodename=f"host-{umid}", fault=fault).path for umid in umids}


def test_every_guest_gives_its_own_answer_in_the_order_of_the_guests(
    fleet: Shell, guests: SimulatedGuests
) -> None:
    paths = _add(guests, ["web", "db", "a", "mail"])
    outcomes = fleet.run(paths, version())
    assert list(outcomes) == ["web", "db", "a", "mail"]
    for umid, outcome in outcomes.items():
        assert outcome.umid == umid
        assert outcome.error is None
        assert f" host-{umid} " in str(outcome.output)
        assert 0 < outcome.seconds < scaled(5)


def test_long_answers_arrive_whole_and_do_not_mix(fleet: Shell, guests: SimulatedGuests) -> None:
    texts = {umid: "".join(f"{umid} {at}\n" for at in range(9000)) for umid in "abcdef"}
    paths = {}
    for umid, text in texts.items():
        guest = guests.add(umid)
        guest.kernel.files["long"] = text
        paths[umid] = guest.path
    outcomes = fleet.run(paths, proc("long"))
    assert {umid: outcome.output for umid, outcome in outcomes.items()} == texts


def test_what_is_wrong_with_one_guest_is_its_own_affair(fleet: Shell, guests: SimulatedGuests) -> None:
    paths = _add(guests, ["good"])
    faults = {"silent": silent, "noisy": garbage(), "lying": wrong_length(-1), "endless": endless}
    for umid, fault in faults.items():
        paths |= _add(guests, [umid], fault)
    ended = guests.add("ended")
    paths["ended"] = ended.path
    ended.end()
    dead = guests.add("dead")
    paths["dead"] = dead.path
    dead.die()
    hung = guests.add("hung")
    paths["hung"] = hung.path
    hung.pause()
    paths["file"] = guests.directory / "file"
    paths["file"].write_text("")
    paths |= _add(guests, ["fine"])

    outcomes = fleet.run(paths, Command("version", scaled(0.4)))

    errors = {umid: type(outcome.error) for umid, outcome in outcomes.items()}
    endless_error = errors.pop("endless")
    assert issubclass(endless_error, MconsoleTimeout | MconsoleProtocolError)
    assert errors == {
        "good": type(None),
        "silent": MconsoleTimeout,
        "noisy": MconsoleProtocolError,
        "lying": MconsoleProtocolError,
        "ended": MconsoleUnreachable,
        "dead": MconsoleUnreachable,
        "hung": MconsoleTimeout,
        "file": MconsoleUnreachable,
        "fine": type(None),
    }
    for umid, outcome in outcomes.items():
        assert (outcome.output is None) == (outcome.error is not None)
        if outcome.error is not None:
            assert isinstance(outcome.error, MconsoleError)
            assert (outcome.error.umid, outcome.error.command) == (umid, "version")


def test_refusal_of_a_guest_has_its_words(fleet: Shell, guests: SimulatedGuests) -> None:
    outcome = fleet.run(_add(guests, ["web"]), remove("eth7"))["web"]
    assert str(outcome.error) == "guest web: remove eth7: Device doesn't exist"


def test_stopped_guest_answers(fleet: Shell, guests: SimulatedGuests) -> None:
    paths = _add(guests, ["web"])
    Mconsole(os.fspath(paths["web"])).stop()
    assert fleet.run(paths, version())["web"].error is None


def test_text_that_cannot_be_sent_is_every_guests_error(fleet: Shell, guests: SimulatedGuests) -> None:
    outcomes = fleet.run(_add(guests, ["web", "db"]), log("x" * 600))
    assert [type(outcome.error) for outcome in outcomes.values()] == [LocalProtocolError] * 2


def test_outcomes_come_as_they_are_known(fleet: Shell, guests: SimulatedGuests) -> None:
    release = threading.Event()

    def when_told(request: bytes, answer: list[bytes]) -> Iterator[Step]:
        while not release.is_set():
            yield 0.01
        yield from answer

    paths = _add(guests, ["late"], when_told) | _add(guests, ["soon"])
    assert fleet.take(1, paths, version()) == ["soon"]
    release.set()
    assert set(fleet.take(2, paths, version())) == {"late", "soon"}


def test_no_more_guests_are_asked_at_a_time_than_allowed(fleet: Shell, guests: SimulatedGuests) -> None:
    busy, most = 0, 0

    def counting(request: bytes, answer: list[bytes]) -> Iterator[Step]:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        yield 0.02
        busy -= 1
        yield from answer

    outcomes = fleet.run(_add(guests, "abcdefgh", counting), version(), concurrency=3)
    assert [outcome.error for outcome in outcomes.values()] == [None] * 8
    assert most == 3


def test_silent_guests_wait_for_their_turn_and_each_has_its_time(
    fleet: Shell, guests: SimulatedGuests
) -> None:
    paths = _add(guests, "abc", silent) | _add(guests, ["good"])
    outcomes = fleet.run(paths, Command("version", scaled(0.2)), concurrency=1)
    assert [type(outcome.error) for outcome in outcomes.values()] == [MconsoleTimeout] * 3 + [type(None)]
    assert all(scaled(0.2) <= outcomes[umid].seconds < scaled(2) for umid in "abc")


def test_late_answer_is_not_the_next_ones(fleet: Shell, guests: SimulatedGuests) -> None:
    paths = _add(guests, ["web"], late(0.3))
    assert isinstance(fleet.run(paths, Command("version", 0.1))["web"].error, MconsoleTimeout)
    assert fleet.run(paths, proc("sys/kernel/panic"))["web"].output == "0\n"


def test_closed_stream_leaves_nothing_and_the_guests_usable(fleet: Shell, guests: SimulatedGuests) -> None:
    """That sockets and threads are gone is checked after every test."""
    paths = _add(guests, ["good"]) | _add(guests, "abcdefgh", silent)
    assert fleet.take(1, paths, Command("version", 60)) == ["good"]
    assert fleet.run({"good": paths["good"]}, version())["good"].error is None


def test_hundreds_of_guests_answer(guests: SimulatedGuests) -> None:
    paths = _add(guests, [f"g{at}" for at in range(500)])
    for kind in ("blocking", "asyncio"):
        outcomes = Shell(kind).run(paths, version())
        assert [umid for umid in paths if f" host-{umid} " not in str(outcomes[umid].output)] == []


def test_empty_fleet_has_no_outcomes(fleet: Shell) -> None:
    assert fleet.run({}, version()) == {}


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process have no more descriptors than it has."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_lack_of_descriptors_is_an_outcome(fleet: Shell, guests: SimulatedGuests) -> None:
    paths = _add(guests, ["web"])
    if fleet.kind == "blocking":
        with no_descriptors():
            outcome = Fleet(_blocking(paths)).run(version())["web"]
    else:

        async def run() -> Outcome:
            with no_descriptors():
                return (await AsyncFleet(_asyncio(paths)).run(version()))["web"]

        outcome = asyncio.run(run())
    assert "Too many open files" in str(outcome.error)


def test_half_of_the_descriptors_is_enough_for_any_number_of_guests(
    fleet: Shell, guests: SimulatedGuests
) -> None:
    paths = _add(guests, [f"g{at}" for at in range(50)], late(0.002))
    # Many names for them, and twice as many descriptors as there are now, and a few for the loop.
    paths = {f"{umid}/{at}": path for umid, path in paths.items() for at in range(8)}
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * lowest + 16, limits[1]))
    try:
        outcomes = fleet.run(paths, version(), concurrency=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert {str(outcome.error) for outcome in outcomes.values()} == {"None"}


def test_guest_that_dies_while_it_is_asked_is_noticed_before_the_limit(guests: SimulatedGuests) -> None:
    outcome = Fleet(_blocking(_add(guests, ["web"], dies))).run(Command("version", 100))["web"]
    assert isinstance(outcome.error, MconsoleUnreachable)


def test_guest_that_reads_nothing_is_given_up(fleet: Shell, short_dir: Path) -> None:
    """With the guest's queue full, the wait is in sending."""
    path = short_dir / "mconsole"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as guest:
        guest.bind(os.fspath(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    filler.sendto(b"x", os.fspath(path))
        outcome = fleet.run({"full": path}, Command("version", 0.2))["full"]
    assert isinstance(outcome.error, MconsoleTimeout)


def test_time_that_the_caller_takes_is_not_the_guests(guests: SimulatedGuests) -> None:
    paths = _add(guests, ["soon"]) | _add(guests, ["later"], late(0.1))
    outcomes = Fleet(_blocking(paths)).stream(Command("version", scaled(0.5)))
    assert next(outcomes).umid == "soon"
    end = time.monotonic() + scaled(0.7)
    wait_until(lambda: time.monotonic() >= end, 2, "longer than the time limit")
    assert next(outcomes).error is None
    assert list(outcomes) == []


async def test_cancelled_run_leaves_no_task(guests: SimulatedGuests) -> None:
    web = guests.add("web", fault=silent)
    run = asyncio.create_task(AsyncFleet(_asyncio({"web": web.path})).run(Command("version", 60)))
    await wait_until_async(lambda: web.requests, 5, "the request")
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert asyncio.all_tasks() == {asyncio.current_task()}


class Answering:
    """A console of another kind."""

    def __init__(self, answer: Callable[[], str]) -> None:
        self._answer = answer

    async def run(self, command: Command) -> str:
        await asyncio.sleep(0)
        return f"{command.display}: {self._answer()}"


def _raise(error: Exception) -> str:
    raise error


async def test_any_console_may_be_in_a_fleet() -> None:
    error = UmlabError("refused")
    fleet = AsyncFleet({"a": Answering(lambda: "yes"), "b": Answering(lambda: _raise(error))})
    outcomes = await fleet.run(version())
    assert outcomes["a"].output == "version: yes"
    assert outcomes["b"].error is error


async def test_bug_of_a_console_is_raised_and_ends_the_others(guests: SimulatedGuests) -> None:
    web = guests.add("web", fault=silent)
    silent_one = AsyncMconsole(os.fspath(web.path))
    fleet = AsyncFleet({"web": silent_one, "bug": Answering(lambda: _raise(ZeroDivisionError()))})
    with pytest.raises(ZeroDivisionError):
        await fleet.run(Command("version", 60))
    assert asyncio.all_tasks() == {asyncio.current_task()}
