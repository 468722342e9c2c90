"""A request that is sent again is not done again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from support.api_lab import ApiLab
from support.deadline import wait_until_async
from umlab.api.error import RequestError
from umlab.api.idempotency import MAX_KEPT, MAX_KEPT_TEXT, AnswerMemory
from umlab.errors import MconsoleTimeout, StateError


async def test_same_key_is_answered_without_being_done_again(api: ApiLab) -> None:
    for _ in range(2):
        answer = await api.call("POST", "/v1/guests/left/stack", {"pid": 7}, idempotency_key="one")
        assert answer.json == {"output": "stack of 7"}
    assert api.lab.asked == [("stack", 7)]
    await api.call("POST", "/v1/guests/left/stack", {"pid": 7})
    await api.call("POST", "/v1/guests/left/stack", {"pid": 7}, idempotency_key="two")
    assert len(api.lab.asked) == 3


async def test_same_key_for_another_request_is_refused(api: ApiLab) -> None:
    await api.call("POST", "/v1/guests/left/stack", {"pid": 7}, idempotency_key="one")
    for target, body in (
        ("/v1/guests/left/stack", {"pid": 8}),
        ("/v1/guests/left/sysrq", {"letter": "m"}),
        ("/v1/guests/right/stack", {"pid": 7}),
    ):
        answer = await api.call("POST", target, body, idempotency_key="one")
        assert (answer.status, answer.error) == (422, "InvalidRequest")
    assert api.lab.asked == [("stack", 7)]


async def test_keys_are_checked(api: ApiLab) -> None:
    for key in ("", "a b", "x" * 65, "\u00e4"):
        answer = await api.call("POST", "/v1/guests/left/stack", {"pid": 7}, idempotency_key=key)
        assert (answer.status, answer.error) == (422, "InvalidRequest"), key


async def test_failure_is_an_answer_as_well(api: ApiLab) -> None:
    for _ in range(2):
        answer = await api.call("POST", "/v1/guests/right/stack", {"pid": 7}, idempotency_key="one")
        assert answer.error == "NoSuchGuest"
        assert (await api.call("PUT", "/v1/guests/right", {})).status == 200


async def test_second_waits_for_the_first_even_if_that_one_leaves(api: ApiLab) -> None:
    api.lab.pause.clear()

    async def ask() -> object:
        return (await api.call("POST", "/v1/guests/left/stack", {"pid": 7}, idempotency_key="one")).json

    first = asyncio.create_task(ask())
    await wait_until_async(lambda: api.lab.asked, 10, "the first is at work")
    second = asyncio.create_task(ask())
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert not second.done()
    api.lab.pause.set()
    assert await second == {"output": "stack of 7"}
    assert api.lab.asked == [("stack", 7)]


async def test_memory_is_bounded_and_keeps_what_is_at_work() -> None:
    memory, done, gate = AnswerMemory(), [0], asyncio.Event()

    async def work() -> int:
        done[0] += 1
        return done[0]

    async def wait() -> str:
        await gate.wait()
        raise StateError("too late")

    slow = asyncio.create_task(memory.run("slow", "slow", wait))
    await asyncio.sleep(0)
    for number in range(2 * MAX_KEPT):
        assert await memory.run(f"key {number}", number, work) == number + 1
    # The last is known still, the first is not, and is done again.
    assert await memory.run(f"key {2 * MAX_KEPT - 1}", 2 * MAX_KEPT - 1, work) == 2 * MAX_KEPT
    assert await memory.run("key 0", 0, work) == 2 * MAX_KEPT + 1
    with pytest.raises(RequestError):
        await memory.run("slow", "another", work)
    gate.set()
    for waiting in (slow, memory.run("slow", "slow", wait)):
        with pytest.raises(StateError, match="too late"):
            await waiting


async def test_long_answers_and_failures_are_forgotten_sooner() -> None:
    """A hostile guest's megabytes stayed for as long as nobody else asked."""
    memory, done = AnswerMemory(), 0
    piece = "x" * (MAX_KEPT_TEXT // 4 - 100)

    async def work() -> str:
        nonlocal done
        done += 1
        if done % 2:
            raise MconsoleTimeout("left", "proc x", piece)
        return piece

    async def ask(number: int) -> None:
        with contextlib.suppress(MconsoleTimeout):
            await memory.run(f"key {number}", number, work)

    for number in range(8):
        await ask(number)
    assert done == 8
    for number in range(4, 8):
        await ask(number)
    assert done == 8
    await ask(3)
    assert done == 9
