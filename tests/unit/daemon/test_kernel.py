"""One guest's kernel, asked by many: nobody waits behind a silence, and the level stays what it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from umlab._clock import ManualClock
from umlab.daemon import kernel as module
from umlab.daemon.kernel import Kernel
from umlab.daemon.pace import BURST, MAX_CALLERS, RATE, Pace
from umlab.errors import GuestBusy, MconsoleError, MconsoleTimeout, MconsoleUnreachable
from umlab.mconsole import command as commands
from umlab.mconsole.command import Command
from umlab.testing.fault import DEATH, Step, answer, garbage
from umlab.testing.guest import SimulatedGuest, SimulatedGuests

#: What a kernel with ``quiet`` on its command line begins with.
LEVEL = 4
Fault = Callable[[bytes, list[bytes]], list[Step]]


@pytest.fixture
def guest(short_dir: Path) -> Iterator[SimulatedGuest]:
    with SimulatedGuests(short_dir) as guests:
        guest = guests.add("left")
        guest.kernel.facts.console_level = LEVEL
        yield guest


@pytest.fixture
def kernel(guest: SimulatedGuest) -> Kernel:
    return Kernel(str(guest.path), guest.umid)


def only(word: bytes, steps: Sequence[Step]) -> Fault:
    """Return the fault of a guest that fails at one command: steps instead of its answer."""
    return lambda request, datagrams: list(steps if request == word else datagrams)


async def test_answer_is_whole_and_the_level_is_restored(kernel: Kernel, guest: SimulatedGuest) -> None:
    shown = await kernel.run_aloud(commands.sysrq("m"))
    assert shown.startswith("sysrq: Show Memory\nMem-Info:\n")
    assert "Call Trace:" in await kernel.run_aloud(commands.stack(1))
    assert guest.kernel.facts.console_level == LEVEL
    sequence = [b"proc sys/kernel/printk", b"sysrq 8", b"sysrq m", b"sysrq 4"]
    assert guest.requests[:4] == sequence
    assert "Call Trace:" not in await kernel.run(commands.stack(1))


async def test_level_that_lets_all_through_is_left_alone(kernel: Kernel, guest: SimulatedGuest) -> None:
    for level in (8, 15):
        guest.requests.clear()
        guest.kernel.facts.console_level = level
        assert "Mem-Info" in await kernel.run_aloud(commands.sysrq("m"))
        assert guest.requests == [b"proc sys/kernel/printk", b"sysrq m"]


@pytest.mark.parametrize("fault", [[], answer(b"none", 1), answer(b"-3 4"), answer(b""), garbage()(b"", [])])
async def test_level_that_nobody_knows_is_not_touched(
    fault: Sequence[Step], kernel: Kernel, guest: SimulatedGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel whose work queue hangs answers no ``proc``, but system requests all the same."""
    monkeypatch.setattr(module, "LEVEL_TIMEOUT", 0.1)
    guest.set_fault(only(b"proc sys/kernel/printk", fault))
    assert await kernel.run_aloud(commands.sysrq("m")) == "sysrq: Show Memory\n"
    assert guest.requests == [b"proc sys/kernel/printk", b"sysrq m"]


async def test_silent_guest_is_not_waited_for_long(
    kernel: Kernel, guest: SimulatedGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEVEL_TIMEOUT", 0.05)
    monkeypatch.setattr(module, "QUICK_TIMEOUT", 0.05)
    guest.pause()
    began = time.monotonic()
    with pytest.raises(MconsoleTimeout, match="did not answer 'stack 1' in time"):
        await kernel.run_aloud(commands.stack(1))
    assert time.monotonic() - began < scaled(5)
    assert kernel.heard_at == 0


@pytest.mark.parametrize(
    ("fault", "error"),
    [(only(b"stack 1", answer(b"no", 1)), MconsoleError), (only(b"stack 1", []), MconsoleTimeout)],
)
async def test_level_is_restored_when_the_call_fails(
    fault: Fault, error: type[Exception], kernel: Kernel, guest: SimulatedGuest
) -> None:
    guest.set_fault(fault)
    with pytest.raises(error):
        await kernel.run_aloud(Command("stack 1", scaled(0.2)))
    assert guest.kernel.facts.console_level == LEVEL


async def test_level_is_restored_where_raising_it_is_not_answered(
    kernel: Kernel, guest: SimulatedGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEVEL_TIMEOUT", 0.2)
    guest.set_fault(only(b"sysrq 8", []))
    with pytest.raises(MconsoleTimeout):
        await kernel.run_aloud(commands.sysrq("m"))
    assert guest.requests[-1] == b"sysrq 4"
    assert guest.kernel.facts.console_level == LEVEL


async def test_level_is_restored_when_the_caller_is_cancelled(kernel: Kernel, guest: SimulatedGuest) -> None:
    guest.set_fault(only(b"stack 1", [scaled(0.2), *answer(b"late")]))
    caller = asyncio.create_task(kernel.run_aloud(commands.stack(1)))
    await wait_until_async(lambda: b"stack 1" in guest.requests, 10, "the stack is asked for")
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert guest.kernel.facts.console_level == 8
    await wait_until_async(lambda: guest.kernel.facts.console_level == LEVEL, 10, "the level is restored")


async def test_level_is_restored_when_the_guest_is_let_go(kernel: Kernel, guest: SimulatedGuest) -> None:
    guest.set_fault(only(b"stack 1", []))
    caller = asyncio.create_task(kernel.run_aloud(commands.stack(1)))
    await wait_until_async(lambda: b"stack 1" in guest.requests, 10, "the stack is asked for")
    await kernel.close()
    assert guest.kernel.facts.console_level == LEVEL
    with pytest.raises(MconsoleUnreachable, match="was removed meanwhile"):
        await caller


async def test_two_at_once_restore_the_right_level(kernel: Kernel, guest: SimulatedGuest) -> None:
    """A raw system request that sets the level has its turn among them, and is what counts afterwards."""
    answers = await asyncio.gather(
        *(kernel.run_aloud(commands.sysrq("m")) for _ in range(4)),
        kernel.run(commands.raw("sysrq 6")),
        *(kernel.run_aloud(commands.stack(1)) for _ in range(4)),
    )
    assert all("Mem-Info" in each for each in answers[:4])
    assert all("Call Trace" in each for each in answers[5:])
    assert guest.kernel.facts.console_level == 6


async def test_who_waits_too_long_for_the_level_is_told(
    kernel: Kernel, guest: SimulatedGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEVEL_WAIT", 0.05)
    guest.set_fault(only(b"stack 1", []))
    first = asyncio.create_task(kernel.run_aloud(Command("stack 1", scaled(1))))
    await wait_until_async(lambda: b"stack 1" in guest.requests, 10, "the stack is asked for")
    with pytest.raises(GuestBusy):
        await kernel.run_aloud(commands.sysrq("m"))
    with pytest.raises(MconsoleTimeout):
        await first


async def test_key_that_ends_the_guest_is_no_worse(kernel: Kernel, guest: SimulatedGuest) -> None:
    guest.set_fault(only(b"sysrq m", [*answer(b"bye"), DEATH]))
    assert await kernel.run_aloud(commands.sysrq("m")) == "bye"
    with pytest.raises(MconsoleUnreachable, match="does not run"):
        await kernel.run_aloud(commands.sysrq("m"))


async def test_nobody_waits_behind_a_request_without_an_answer(kernel: Kernel, guest: SimulatedGuest) -> None:
    guest.set_fault(only(b"proc vmstat", []))
    slow = asyncio.create_task(kernel.run(Command("proc vmstat", scaled(60))))
    await wait_until_async(lambda: b"proc vmstat" in guest.requests, 10, "the first is asked")
    assert (await kernel.run(commands.version())).startswith("Linux")
    assert "Call Trace" in await kernel.run_aloud(commands.stack(1))
    assert not slow.done()
    slow.cancel()


async def test_everybody_who_asks_shares_one_pace(guest: SimulatedGuest) -> None:
    pace = Pace("left", ManualClock())
    kernel = Kernel(str(guest.path), guest.umid, pace)
    await kernel.run(commands.version())
    await kernel.run_aloud(commands.stack(1))
    await kernel.vitals()
    asked = len(guest.requests)
    assert asked == 11
    assert sum(pace.reserve() == 0 for _ in range(BURST)) == BURST - asked
    # The clock stands still: what comes now has its turn when those before it have had theirs.
    began = time.monotonic()
    await kernel.run(commands.version())
    assert time.monotonic() - began >= 12 / RATE


async def test_hung_guest_has_a_bounded_number_of_callers(kernel: Kernel, guest: SimulatedGuest) -> None:
    guest.pause()
    waiting = [asyncio.create_task(kernel.run(commands.version())) for _ in range(MAX_CALLERS)]
    await asyncio.sleep(0)
    with pytest.raises(GuestBusy):
        await kernel.run(commands.version())
    with pytest.raises(GuestBusy):
        await kernel.run_aloud(commands.stack(1))
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    guest.resume()
    assert (await kernel.run(commands.version())).startswith("Linux")
