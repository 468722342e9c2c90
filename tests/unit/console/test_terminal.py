"""A terminal with viewers, over a real pseudo terminal whose other side the test has."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
import tty
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from support.deadline import scaled, wait_until_async
from umlab.console.scrollback import SIZE, Scrollback
from umlab.console.terminal import MAX_BEHIND, MAX_INPUT, MAX_VIEWERS, Terminal, Viewer
from umlab.errors import LimitReached, StateError

LONG = scaled(20)


class Counted(Scrollback):
    """Counts what was written."""

    total = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        self.total += len(data)


@dataclass
class Host:
    """A terminal and the guest's side of it."""

    terminal: Terminal
    scrollback: Counted
    guest: int
    resizes: list[tuple[int, int]] = field(default_factory=list)

    async def prints(self, data: bytes) -> None:
        """Let the guest print, and wait until all of it has been taken."""
        before = self.scrollback.total
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.guest, view) :]
            except BlockingIOError:
                await asyncio.sleep(0)
        await wait_until_async(lambda: self.scrollback.total >= before + len(data), 20, "the output")

    async def reads(self, size: int) -> bytes:
        """Return what the guest gets, ``size`` bytes at least."""
        data = b""

        def enough() -> bool:
            nonlocal data
            with contextlib.suppress(BlockingIOError):
                data += os.read(self.guest, 65536)
            return len(data) >= size

        await wait_until_async(enough, 20, "the input")
        return data

    def leave(self) -> None:
        os.close(self.guest)
        self.guest = -1


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(slave, False)
    scrollback = Counted()
    resizes: list[tuple[int, int]] = []
    host = Host(Terminal(master, scrollback, lambda *size: resizes.append(size)), scrollback, slave, resizes)
    yield host
    host.terminal.close()
    scrollback.close()
    if host.guest >= 0:
        host.leave()


async def read_all(viewer: Viewer) -> bytes:
    data = b""
    while piece := await asyncio.wait_for(viewer.read(), LONG):
        data += piece
    return data


async def test_every_viewer_sees_the_past_and_the_present(host: Host) -> None:
    await host.prints(b"past ")
    one, two = host.terminal.attach(), host.terminal.attach()
    assert host.terminal.viewers == 2
    await host.prints(b"present \x1b[2J\xff")
    host.terminal.detach(two)
    host.terminal.detach(two)
    await host.prints(b" alone")
    assert await read_all(two) == b"past present \x1b[2J\xff"
    host.terminal.detach(one)
    assert await read_all(one) == b"past present \x1b[2J\xff alone"
    assert host.terminal.viewers == 0
    assert not one.lagged


async def test_viewer_waits_for_output(host: Host) -> None:
    viewer = host.terminal.attach()
    reading = asyncio.ensure_future(viewer.read())
    await asyncio.sleep(0)
    assert not reading.done()
    await host.prints(b"now")
    assert await asyncio.wait_for(reading, LONG) == b"now"


async def test_output_without_end_costs_a_slow_viewer_its_place_and_nobody_else(host: Host) -> None:
    slow, quick = host.terminal.attach(), host.terminal.attach()
    seen = 0

    async def follow() -> None:
        nonlocal seen
        while data := await quick.read():
            seen += len(data)

    following = asyncio.ensure_future(follow())
    await host.prints(b"y" * (MAX_BEHIND + SIZE))
    assert (slow.ended, slow.lagged) == (True, True)
    assert await slow.read() == b""
    assert host.terminal.viewers == 1
    slow.feed(b"too late")
    assert await slow.read() == b""
    host.terminal.detach(quick)
    await following
    assert (seen, quick.lagged) == (MAX_BEHIND + SIZE, False)
    assert host.scrollback.read() == b"y" * SIZE


async def test_input_reaches_the_guest_in_small_pieces_and_in_order(host: Host) -> None:
    text = bytes(range(256)) * 20
    host.terminal.write(text[:3000])
    host.terminal.write(text[3000:])
    assert len(await host.reads(1)) <= 2048
    got = await host.reads(len(text) - 1024)
    assert text.endswith(got)


async def test_guest_that_does_not_read_has_a_limit_and_is_served_later(host: Host) -> None:
    host.terminal.write(b"a" * MAX_INPUT)
    with pytest.raises(LimitReached, match="does not read"):
        host.terminal.write(b"b" * MAX_INPUT)
    got = await host.reads(MAX_INPUT)
    assert got == b"a" * MAX_INPUT
    host.terminal.write(b"c")
    assert await host.reads(1) == b"c"


async def test_viewers_have_a_limit(host: Host) -> None:
    viewers = [host.terminal.attach() for _ in range(MAX_VIEWERS)]
    with pytest.raises(LimitReached, match="64 viewers"):
        host.terminal.attach()
    host.terminal.detach(viewers[0])
    host.terminal.attach()


async def test_resize_reaches_the_guest(host: Host) -> None:
    host.terminal.resize(33, 99)
    rows, columns, *_ = struct.unpack("=4H", fcntl.ioctl(host.guest, termios.TIOCGWINSZ, bytes(8)))
    assert (rows, columns) == (33, 99)
    assert host.resizes == [(33, 99)]
    for size in ((0, 80), (24, 0), (10_000, 80), (24, 10_000), (-1, 80)):
        with pytest.raises(ValueError, match="window"):
            host.terminal.resize(*size)


async def test_end_of_the_guest_closes_it_after_the_last_words(host: Host) -> None:
    viewer = host.terminal.attach()
    os.write(host.guest, b"last words")
    host.leave()
    assert await read_all(viewer) == b"last words"
    await wait_until_async(lambda: host.terminal.viewers == 0, 10, "the terminal to be closed")
    with pytest.raises(StateError):
        host.terminal.attach()
    with pytest.raises(StateError):
        host.terminal.write(b"x")
    host.terminal.resize(24, 80)
    assert host.resizes == []


async def test_close_ends_viewers_and_gives_up_input(host: Host) -> None:
    viewer = host.terminal.attach()
    host.terminal.write(b"x" * 5000)
    host.terminal.close()
    host.terminal.close()
    assert await read_all(viewer) == b""


async def test_size_without_anybody_to_tell() -> None:
    master, slave = os.openpty()
    scrollback = Scrollback()
    terminal = Terminal(master, scrollback)
    terminal.resize(24, 80)
    terminal.close()
    scrollback.close()
    os.close(slave)
