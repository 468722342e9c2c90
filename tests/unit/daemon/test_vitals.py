"""How a guest is: asked once for all, good for a while, and without waiting for one that is silent."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from umlab._clock import ManualClock
from umlab.daemon import vitals as module
from umlab.daemon.kernel import Kernel
from umlab.daemon.view import GuestVitals
from umlab.daemon.vitals import MAX_AGE, SILENT_AFTER, Vitals
from umlab.errors import MconsoleError, MconsoleTimeout, MconsoleUnreachable
from umlab.mconsole.command import Command
from umlab.testing.fault import escapes, garbage, silent
from umlab.testing.guest import SimulatedGuests

MEMINFO = "".join(
    f"{name}: {amount} kB\n"
    for name, amount in {
        **{"MemTotal": 1000, "MemFree": 300, "MemAvailable": 600, "Buffers": 1, "Cached": 2},
        **{"SwapTotal": 0, "SwapFree": 0},
    }.items()
)


class FakeKernel:
    """Answers from a table, or fails, or waits until it is let go."""

    def __init__(self) -> None:
        self.answers = {
            "version": "Linux left 6.1.176 #1 Sat Jul  4 15:38:16 UTC 2026 x86_64",
            "proc uptime": "100.00 50.00\n",
            "proc stat": "cpu  100 50 50 700 50 0 0 50 0 0\n",
            "proc loadavg": "0.50 0.25 0.12 1/34 675\n",
            "proc meminfo": MEMINFO,
        }
        self.error: MconsoleError | None = None
        self.go = asyncio.Event()
        self.go.set()
        self.asked: list[str] = []
        self.timeouts: list[float] = []

    async def ask(self, command: Command, timeout: float) -> str:  # noqa: ASYNC109
        self.asked.append(command.display)
        self.timeouts.append(timeout)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        if command.display not in self.answers:
            raise MconsoleError("left", command.display, "Read of file failed")
        return self.answers[command.display]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def vitals(kernel: FakeKernel, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> Vitals:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    return Vitals("left", kernel.ask, clock)


def age(clock: ManualClock) -> None:
    """Let the last reading grow too old."""
    clock.advance(int(MAX_AGE * 1_000_000_000))


async def test_everything_that_the_kernel_tells(vitals: Vitals) -> None:
    assert await vitals.now() == GuestVitals(
        *("left", "answers", 0.0, "6.1.176", 100.0, (0.5, 0.25, 0.12), 1000 << 10, 400 << 10, 0.2)
    )


async def test_many_who_ask_at_once_cost_one_reading(vitals: Vitals, kernel: FakeKernel) -> None:
    kernel.go.clear()
    asking = [asyncio.create_task(vitals.now()) for _ in range(50)]
    await wait_until_async(lambda: kernel.asked, 10, "the kernel is asked")
    # Who leaves takes nothing from the others.
    asking[0].cancel()
    kernel.go.set()
    answers = await asyncio.gather(*asking[1:])
    assert {each.state for each in answers} == {"answers"}
    assert sorted(kernel.asked) == sorted(kernel.answers)


async def test_reading_is_good_for_a_while(vitals: Vitals, kernel: FakeKernel, clock: ManualClock) -> None:
    await vitals.now()
    clock.advance(1_500_000_000)
    assert (await vitals.now()).age == 1.5
    assert len(kernel.asked) == 5
    age(clock)
    assert (await vitals.now()).age == 0
    # The release is the same as long as the uptime grows.
    assert kernel.asked[5:] == ["proc uptime", "proc stat", "proc loadavg", "proc meminfo"]


async def test_cpu_is_that_of_the_time_between(
    vitals: Vitals, kernel: FakeKernel, clock: ManualClock
) -> None:
    for stat, share in (
        ("cpu  200 100 100 1400 100 0 0 100 0 0\n", 0.2),
        ("cpu  275 100 100 1400 100 0 0 125 0 0\n", 0.75),
        ("cpu  275 100 100 1400 100 0 0 125 0 0\n", 0.0),
        # Time that goes back and makes no sense.
        ("cpu  275 100 100 9 100 0 0 125 0 0\n", 0.0),
        ("cpu  275 100 100 9 100 0 0\n", 0.0),
        ("cpu?\n", None),
    ):
        kernel.answers["proc stat"] = stat
        assert (await vitals.now()).cpu == share
        age(clock)


async def test_reboot_begins_anew(vitals: Vitals, kernel: FakeKernel, clock: ManualClock) -> None:
    await vitals.now()
    age(clock)
    kernel.answers |= {
        "version": "Linux left 6.12.3 #1 x86_64",
        "proc uptime": "1.00 0.50\n",
        "proc stat": "cpu  75 0 0 25 0 0 0 0 0 0\n",
    }
    now = await vitals.now()
    assert (now.release, now.uptime, now.cpu) == ("6.12.3", 1.0, 0.75)


@pytest.mark.parametrize("answer", [None, "", "\n", "nonsense", "9" * 5000, "1.0\x1b[2J 2.0\n"])
async def test_what_is_not_served_is_not_known(
    answer: str | None, vitals: Vitals, kernel: FakeKernel
) -> None:
    for name in kernel.answers if answer is not None else ():
        kernel.answers[name] = answer or ""
    if answer is None:
        kernel.answers.clear()
    # To refuse is to answer.
    assert await vitals.now() == GuestVitals("left", "answers" if answer is None else "garbled", 0.0)


async def test_guest_that_makes_some_sense_is_not_garbled(vitals: Vitals, kernel: FakeKernel) -> None:
    kernel.answers |= dict.fromkeys(("version", "proc uptime", "proc stat", "proc meminfo"), "nonsense")
    shown = await vitals.now()
    assert (shown.state, shown.load, shown.uptime) == ("answers", (0.5, 0.25, 0.12), None)


async def test_kernel_that_does_nothing_but_answer_is_stopped(
    vitals: Vitals, kernel: FakeKernel, clock: ManualClock
) -> None:
    idle, switches = kernel.answers["proc stat"], 0

    async def running(command: Command, timeout: float) -> str:  # noqa: ASYNC109
        nonlocal switches
        switches += 2
        kernel.answers["proc stat"] = f"{idle}ctxt {switches}\n"
        return await FakeKernel.ask(kernel, command, timeout)

    vitals = Vitals("left", running, clock)
    assert (await vitals.now()).state == "answers"
    # One question more, and no other.
    assert kernel.asked.count("proc stat") == 2
    assert len(kernel.asked) == 6
    age(clock)
    vitals._ask = kernel.ask
    shown = await vitals.now()
    assert (shown.state, shown.is_current, shown.load) == ("stopped", True, (0.5, 0.25, 0.12))
    age(clock)
    vitals._ask = running
    assert (await vitals.now()).state == "answers"


async def test_silence_is_told_with_the_last_reading(
    vitals: Vitals, kernel: FakeKernel, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    await vitals.now()
    age(clock)
    kernel.go.clear()
    # It is late, and may have much to do.
    shown = await vitals.now()
    assert (shown.state, shown.age, shown.uptime) == ("answers", MAX_AGE, 100.0)
    clock.advance(int(SILENT_AFTER * 1e9))
    shown = await vitals.now()
    assert (shown.state, shown.age, shown.uptime) == ("silent", MAX_AGE + SILENT_AFTER, 100.0)
    # The one question that is out already has had its time: nobody waits again, nobody asks again.
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    assert {(await vitals.now()).state for _ in range(20)} == {"silent"}
    assert len(kernel.asked) == 6
    kernel.go.set()
    await wait_until_async(lambda: len(kernel.asked) == 9, 10, "the reading goes on")
    assert (await vitals.now()).state == "answers"


async def test_guest_that_has_not_answered_yet_is_not_silent_at_once(
    vitals: Vitals, kernel: FakeKernel, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    kernel.go.clear()
    assert await vitals.now() == GuestVitals("left", "?")
    clock.advance(int(SILENT_AFTER * 1e9))
    assert await vitals.now() == GuestVitals("left", "silent")
    kernel.error = MconsoleTimeout("left", "proc uptime", "")
    kernel.go.set()
    await wait_until_async(lambda: vitals._looking is None, 10, "the question has failed")
    kernel.go.clear()
    age(clock)
    # It has failed before: late is what it is.
    assert await vitals.now() == GuestVitals("left", "silent")
    kernel.go.set()
    await vitals.close()


async def test_slow_answers_are_answers(vitals: Vitals, kernel: FakeKernel, clock: ManualClock) -> None:
    async def slowly(command: Command, timeout: float) -> str:  # noqa: ASYNC109
        clock.advance(1_500_000_000)
        if command.display == "proc meminfo":
            kernel.go.clear()
        return await kernel.ask(command, timeout)

    vitals = Vitals("left", slowly, clock)
    asking = asyncio.create_task(vitals.now())
    await wait_until_async(lambda: "proc meminfo" in kernel.asked, 10, "the last question")
    # Six seconds in all, and none for which nothing came for two.
    assert (await asking).state == "?"
    kernel.go.set()
    await vitals.close()


async def test_silent_guest_is_asked_more_and_more_seldom(
    vitals: Vitals, kernel: FakeKernel, clock: ManualClock
) -> None:
    kernel.error = MconsoleTimeout("left", "proc uptime", "")
    for _ in range(6):
        assert (await vitals.now()).state == "silent"
        await asyncio.sleep(0)
        age(clock)
    assert kernel.timeouts == [5, 10, 20, 40, 60, 60]
    kernel.error = None
    # That it answers again is known to whoever asks next, however long it was silent.
    assert (await vitals.now()).state == "answers"
    age(clock)
    await vitals.now()
    assert kernel.timeouts[-1] == 5


async def test_guest_that_does_not_run(vitals: Vitals, kernel: FakeKernel, clock: ManualClock) -> None:
    kernel.error = MconsoleUnreachable("left", "proc uptime", "does not run")
    assert await vitals.now() == GuestVitals("left", "unreachable")
    age(clock)
    kernel.error = None
    assert (await vitals.now()).state == "answers"


async def test_end_is_no_answer(vitals: Vitals, kernel: FakeKernel) -> None:
    kernel.go.clear()
    asking = asyncio.create_task(vitals.now())
    await wait_until_async(lambda: kernel.asked, 10, "the kernel is asked")
    await vitals.close()
    assert (await asking).age is None
    await vitals.close()


async def test_simulated_guest_and_its_faults(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_AGE", 0.0)
    monkeypatch.setattr(module, "PATIENCE", scaled(0.2))
    with SimulatedGuests(short_dir) as guests:
        guest = guests.add("left", release="6.12.9", memory=96 << 20)
        guest.kernel.facts.load = (1.5, 0.5, 0.25)
        kernel = Kernel(str(guest.path), "left")
        shown = await kernel.vitals()
        assert (shown.state, shown.release, shown.load) == ("answers", "6.12.9", (1.5, 0.5, 0.25))
        assert shown.memory_total == 96 << 20
        assert 0 < (shown.memory_used or 0) < 96 << 20
        for fault, state in ((garbage(), "garbled"), (escapes, "answers")):
            guest.set_fault(fault)
            garbled = await kernel.vitals()
            assert (garbled.state, garbled.uptime, garbled.memory_total) == (state, None, None)
        guest.set_fault(None)
        guest.kernel.stopped = True
        assert (await kernel.vitals()).state == "stopped"
        guest.set_fault(silent)
        monkeypatch.setattr(module, "SILENT_AFTER", 0.0)
        assert (await kernel.vitals()).state == "silent"
        await kernel.close()
        guest.die()
        kernel = Kernel(str(guest.path), "left")
        assert (await kernel.vitals()).state == "unreachable"
        await kernel.close()


async def test_hundred_hung_guests_cost_the_time_of_one(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    monkeypatch.setattr(module, "SILENT_AFTER", 0.0)
    with SimulatedGuests(short_dir) as guests:
        kernels = []
        for number in range(100):
            guest = guests.add(f"g{number}")
            guest.pause()
            kernels.append(Kernel(str(guest.path), guest.umid))
        began = time.monotonic()
        shown = await asyncio.gather(*(each.vitals() for each in kernels))
        assert time.monotonic() - began < scaled(5)
        assert {each.state for each in shown} == {"silent"}
        await asyncio.gather(*(each.close() for each in kernels))
