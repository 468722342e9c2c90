"""Lines into pipes that are read late, or not at all."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator

import pytest

from support.deadline import scaled, wait_until_async
from umlab import _line_writer
from umlab._line_writer import LineWriter, write_now


@pytest.fixture
def pipe() -> Iterator[list[int]]:
    ends = list(os.pipe())
    # One page: the smallest there is.
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, 4096)
    yield ends
    for fd in ends:
        os.close(fd)


async def read_until(fd: int, last: bytes) -> bytes:
    text = b""
    async with asyncio.timeout(scaled(10)):
        while last not in text:
            text += await asyncio.to_thread(os.read, fd, 4096)
    return text


async def test_line_is_there_at_once(pipe: list[int]) -> None:
    writer = LineWriter(pipe[1], asyncio.get_running_loop())
    writer.write("one")
    assert os.read(pipe[0], 100) == b"one\n"
    writer.write("tw\udcff")
    assert os.read(pipe[0], 100) == b"tw\xff\n"
    writer.close()


async def test_lines_wait_for_a_slow_reader_in_order(pipe: list[int]) -> None:
    writer = LineWriter(pipe[1], asyncio.get_running_loop())
    for number in range(500):
        writer.write(f"line {number} {'x' * 50}")
    text = await read_until(pipe[0], b"line 499")
    assert [line.split()[1] for line in text.splitlines()] == [b"%d" % number for number in range(500)]
    writer.close()
    assert os.get_blocking(pipe[1])


async def test_prompt_waits_in_its_place_and_has_no_line_end(pipe: list[int]) -> None:
    writer = LineWriter(pipe[1], asyncio.get_running_loop())
    writer.write("x" * 5000)
    writer.write_bytes(b"\nvde$ ")
    writer.write("help")
    assert (await read_until(pipe[0], b"help\n"))[5000:] == b"\n\nvde$ help\n"
    writer.close()


async def test_line_longer_than_a_pipe_arrives_whole(pipe: list[int]) -> None:
    writer = LineWriter(pipe[1], asyncio.get_running_loop())
    writer.write("x" * 10_000 + "end")
    assert len(await read_until(pipe[0], b"end\n")) == 10_004
    writer.close()


async def test_more_lines_than_may_wait_are_counted(pipe: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_line_writer, "MAX_WAITING", 3)
    writer = LineWriter(pipe[1], asyncio.get_running_loop())
    for number in range(10):
        writer.write(f"{number}")
    text = await read_until(pipe[0], b"nobody read them")
    # The first line is in the pipe at once, three wait.
    assert text == b"0\n1\n2\n3\n(6 lines lost: nobody read them)\n"
    writer.write("again")
    assert await read_until(pipe[0], b"again") == b"again\n"
    writer.close()


async def test_reader_that_left_costs_lines_and_nothing_else() -> None:
    read_end, write_end = os.pipe()
    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
    writer = LineWriter(write_end, asyncio.get_running_loop())
    for _ in range(3):
        writer.write("x")
    os.close(read_end)
    await wait_until_async(lambda: not writer._watched, 10, "what waited is given up")
    writer.write("y")
    writer.close()
    write_now(write_end, "z")
    os.close(write_end)
    write_now(write_end, "closed")


async def test_close_does_not_wait_for_a_reader(pipe: list[int]) -> None:
    writer = LineWriter(pipe[1], asyncio.get_running_loop())
    for _ in range(3):
        writer.write("x")
    writer.close()
    assert os.read(pipe[0], 4096) == b"x\n"


def test_write_now_writes_everything(pipe: list[int]) -> None:
    write_now(pipe[1], "one\ntwo")
    assert os.read(pipe[0], 100) == b"one\ntwo\n"
