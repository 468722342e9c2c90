"""Groups that this process starts itself, with shells in the place of kernels."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from support.deadline import scaled, wait_until_async
from umlab.guest.group import LocalStarter, Order
from umlab.guest.watch import group_members

LONG = scaled(20)


def shell(script: str, cwd: str = "/") -> Order:
    return Order(("0", "0", "/bin/sh", "-c", script), cwd, {"WORD": "text"})


async def test_group_has_what_was_ordered_and_its_end_is_told_in_the_loops_thread(tmp_path: Path) -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    group = await LocalStarter().start(
        "g",
        shell("echo $WORD in $(pwd) as $$; echo three >&3; exit 7", str(tmp_path)),
        writer,
        [file],
        ended.set_result,
    )
    os.close(writer)
    os.close(file)
    assert await asyncio.wait_for(ended, LONG) == 7
    assert await group.gone(LONG)
    assert os.read(reader, 100).decode() == f"text in {tmp_path} as {group.pid}\n"
    assert (tmp_path / "file").read_text() == "three\n"
    os.close(reader)
    # Too late, which is no error.
    group.signal(signal.SIGTERM)
    group.kill()


async def test_signal_is_for_the_main_process_and_kill_for_all(tmp_path: Path) -> None:
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    script = f"trap 'echo hit >{tmp_path}/hit' TERM; sleep 60 & while :; do wait; sleep 0.01; done"
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    group = await LocalStarter().start("g", shell(script), null, [], ended.set_result)
    os.close(null)

    def hit() -> bool:
        group.signal(signal.SIGTERM)
        return (tmp_path / "hit").exists()

    await wait_until_async(lambda: len(group_members(group.pid)) == 2, 10, "the family")
    await wait_until_async(hit, 10, "the main process to be hit")
    assert not await group.gone(0.05)
    group.kill()
    assert await asyncio.wait_for(ended, LONG) == -signal.SIGKILL
    assert await group.gone(LONG)
    assert group_members(group.pid) == []


@pytest.mark.parametrize(
    ("order", "error"),
    [
        (shell("x", "/no/such/place"), FileNotFoundError),
        (shell("nul\0"), ValueError),
        (shell("\ud800"), ValueError),
    ],
)
async def test_what_cannot_be_started_raises_and_leaves_nothing(order: Order, error: type[Exception]) -> None:
    with pytest.raises(error):
        await LocalStarter().start("g", order, 2, [], lambda _: None)


def test_end_after_the_loop_is_told_to_nobody() -> None:
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)

    async def begin() -> object:
        return await LocalStarter().start("g", shell("sleep 60"), null, [], lambda _: pytest.fail("told"))

    group = asyncio.run(begin())
    group.kill()  # type: ignore[attr-defined]
    assert asyncio.run(group.gone(LONG))  # type: ignore[attr-defined]
    os.close(null)
