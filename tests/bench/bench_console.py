"""What a console command costs: one guest asked again and again, and many guests asked at once.

Run as ``python tests/bench/bench_console.py``.  Everybody sends ``version``.  The peer is the C
``uml_mconsole``, which is a process for each call; many guests it is given one by one, or by ``xargs`` as
many at a time as the library asks.  Simulated guests are served by one thread of a process of its own, real
ones have the tiny root and are idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from measure import command, machine, report
from measure.rounds import Comparison, Unable, compare

from umlab.daemon.guest import GuestService
from umlab.guest.cmdline import GuestSpec
from umlab.mconsole.aio import AsyncMconsole
from umlab.mconsole.command import version
from umlab.mconsole.fleet import CONCURRENCY, AsyncFleet, Fleet
from umlab.mconsole.sync import Mconsole

PEER = "/usr/bin/uml_mconsole"
SIMULATED = 100
REAL = 10
#: Seconds for a guest to boot, of several that do so at once.
PATIENCE = 120

Paths = dict[str, str]
Measure = Callable[[], Mapping[str, float]]

#: Serves guests until its input ends.
_SIMULATED = """
import sys
from umlab.testing.guest import SimulatedGuests
with SimulatedGuests(sys.argv[1]) as guests:
    for number in range(int(sys.argv[2])):
        guests.add(f"g{number}")
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def simulated_guests(place: Path, count: int) -> Iterator[Paths]:
    """Run guests that a process of its own simulates."""
    words = [sys.executable, "-c", _SIMULATED, str(place), str(count)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            if process.stdout.readline() != b"ready\n":
                raise SystemExit("the simulated guests have not started")
            yield {f"g{number}": f"{place}/g{number}/mconsole" for number in range(count)}
        finally:
            process.stdin.close()


@contextlib.contextmanager
def real_guests(place: Path, count: int) -> Iterator[Paths]:
    """Boot guests with the tiny root."""
    print(f"{count} guests boot", file=sys.stderr, flush=True)
    services: list[GuestService] = []

    async def start() -> None:
        for number in range(count):
            services.append(await GuestService.start(GuestSpec(f"bench{number}"), os.fspath(place)))
        for service in services:
            await service.ready(PATIENCE)

    async def stop() -> None:
        await asyncio.gather(*(service.stop() for service in services))

    with asyncio.Runner() as runner:
        try:
            runner.run(start())
            yield {service.umid: service.guest.run.mconsole_path for service in services}
        finally:
            runner.run(stop())


def calls(seconds: float, call: Callable[[], object]) -> dict[str, float]:
    """Call again and again."""
    times = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - begin)
    return {"rate": len(times) / sum(times), "p50": statistics.median(times) * 1e6}


async def awaited_calls(seconds: float, path: str) -> dict[str, float]:
    """Await again and again."""
    mconsole = AsyncMconsole(path)
    times = []
    end = time.perf_counter() + seconds
    while (begin := time.perf_counter()) < end:
        await mconsole.version()
        times.append(time.perf_counter() - begin)
    return {"rate": len(times) / sum(times), "p50": statistics.median(times) * 1e6}


def run_process(*words: str) -> None:
    """Run a program that must succeed."""
    try:
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        raise Unable(f"there is no {words[0]}") from None


def one_by_one(program: str, paths: Paths) -> None:
    """Run a process for each guest, one after another."""
    for path in paths.values():
        run_process(program, path, "version")


def side_by_side(program: str, paths: Paths) -> None:
    """Run a process for each guest, many at a time."""
    words = ["xargs", "-P", str(CONCURRENCY), "-I", "{}", program, "{}", "version"]
    places = "\n".join(paths.values()).encode()
    subprocess.run(words, input=places, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def ask_fleet(paths: Paths) -> None:
    """Ask with the blocking library."""
    outcomes = Fleet({umid: Mconsole(path, umid) for umid, path in paths.items()}).run(version())
    assert all(outcome.error is None for outcome in outcomes.values())


def ask_async_fleet(paths: Paths) -> None:
    """Ask with the asyncio library, the loop's beginning and end included."""
    fleet = AsyncFleet({umid: AsyncMconsole(path, umid) for umid, path in paths.items()})
    outcomes = asyncio.run(fleet.run(version()))
    assert all(outcome.error is None for outcome in outcomes.values())


def fan_out(repeat: int, paths: Paths) -> dict[str, Measure]:
    """Return everybody who asks many guests; the time is the median of several goes."""

    def timed(ask: Callable[[], None], goes: int) -> dict[str, float]:
        times = []
        for _ in range(goes):
            begin = time.perf_counter()
            ask()
            times.append(time.perf_counter() - begin)
        return {"time": statistics.median(times) * 1e3, "worst": max(times) * 1e3}

    return {
        "C uml_mconsole, one by one": lambda: timed(lambda: one_by_one(PEER, paths), 1),
        f"C uml_mconsole, {CONCURRENCY} at a time": lambda: timed(lambda: side_by_side(PEER, paths), 1),
        "Fleet": lambda: timed(lambda: ask_fleet(paths), repeat),
        "AsyncFleet": lambda: timed(lambda: ask_async_fleet(paths), repeat),
    }


def comparisons(stack: contextlib.ExitStack, rounds: int, quick: bool, only: str) -> Iterator[Comparison]:
    """Compare what was asked for."""
    place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uml")))
    seconds, repeat = (0.3, 3) if quick else (2, 20)
    if only in "console-calls" or only in "console-fleet":
        simulated = stack.enter_context(simulated_guests(place, SIMULATED))
        first = next(iter(simulated.values()))
        mconsole = Mconsole(first)
        if only in "console-calls":
            yield compare(
                "console-calls",
                "`version` again and again, of one simulated guest",
                {"rate": "calls/s", "p50": "us"},
                {
                    "C uml_mconsole": lambda: calls(seconds, lambda: run_process(PEER, first, "version")),
                    "Mconsole": functools.partial(calls, seconds, mconsole.version),
                    "AsyncMconsole": lambda: asyncio.run(awaited_calls(seconds, first)),
                },
                rounds,
            )
        if only in "console-fleet":
            yield compare(
                "console-fleet",
                f"`version` of {SIMULATED} simulated guests",
                {"time": "ms", "worst": "ms"},
                fan_out(repeat, simulated),
                rounds,
            )
    if only in "console-real":
        real = stack.enter_context(real_guests(place, REAL))
        yield compare(
            "console-real",
            f"`version` of {REAL} real guests",
            {"time": "ms", "worst": "ms"},
            fan_out(repeat, real),
            rounds,
        )


def main() -> None:
    """Measure calls, then many guests."""
    options = command.parser("Measure the management console's clients.").parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    facts = machine.facts()
    if shutil.which("xargs") is None:
        raise SystemExit("the benchmark needs xargs; install the package findutils")
    with contextlib.ExitStack() as stack:
        rounds = 1 if options.quick else options.rounds
        found = list(comparisons(stack, rounds, options.quick, options.only or ""))
    report.write("console", facts, found)


if __name__ == "__main__":
    main()
