"""Coroutines that run side by side."""

from __future__ import annotations

import asyncio

import pytest

from support.deadline import scaled
from umlab._tasks import until_ended


class Waiter:
    """One that never ends by itself, and tells how it was ended."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.was_ended = False

    async def run(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.was_ended = True


async def end_after(*waiters: Waiter) -> None:
    for waiter in waiters:
        await waiter.begun.wait()


async def fail_after(*waiters: Waiter) -> None:
    await end_after(*waiters)
    raise OSError("no more")


async def test_what_only_goes_on_meanwhile_ends_with_the_last_that_is_waited_for() -> None:
    beside = Waiter()
    async with asyncio.timeout(scaled(5)):
        await until_ended([end_after(), end_after(beside)], [beside.run()])
    assert beside.was_ended


async def test_what_goes_on_meanwhile_may_end_before() -> None:
    wanted = Waiter()
    running = asyncio.ensure_future(until_ended([wanted.run()], [end_after(wanted)]))
    await wanted.begun.wait()
    done, _ = await asyncio.wait([running], timeout=0.05)
    assert not done
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert wanted.was_ended


@pytest.mark.parametrize("is_wanted", [True, False])
async def test_failure_of_one_ends_all(is_wanted: bool) -> None:
    wanted, beside = Waiter(), Waiter()
    groups = [wanted.run()], [beside.run()]
    groups[0 if is_wanted else 1].append(fail_after(wanted, beside))
    with pytest.raises(OSError, match="no more"):
        await asyncio.wait_for(until_ended(*groups), scaled(5))
    assert wanted.was_ended
    assert beside.was_ended
