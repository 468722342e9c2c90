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
from umlab.console.feed import MAX_BEHIND as SCREEN_BEHIND
from umlab.console.feed import ScreenFeed, ScreenFollower
from umlab.console.screen import Screen
from umlab.console.scrollback import SIZE, Scrollback
from umlab.console.terminal import MAX_BEHIND, MAX_INPUT, MAX_VIEWERS, Size, Terminal, Viewer
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
    terminal = Terminal(
        master, ScreenFeed(), scrollback=scrollback, on_resize=lambda *size: resizes.append(size)
    )
    host = Host(terminal, scrollback, slave, resizes)
    yield host
    host.terminal.close()
    scrollback.close()
    if host.guest >= 0:
        host.leave()


async def read_all(viewer: Viewer) -> bytes:
    """Return what a viewer gets until it is detached, without the sizes."""
    data = b""
    while piece := await asyncio.wait_for(viewer.read(), LONG):
        if not isinstance(piece, Size):
            data += piece
    return data


def shown(output: bytes, rows: int = 24, columns: int = 80) -> list[str]:
    """Return what a viewer's terminal shows of this, without the empty lines below."""
    screen = Screen(rows, columns)
    screen.feed(output)
    return "\n".join(screen.lines()).rstrip("\n").split("\n")


async def test_every_viewer_sees_the_past_and_the_present(host: Host) -> None:
    await host.prints(b"\x1b[31mpast ")
    one, two = host.terminal.attach(), host.terminal.attach("read")
    assert (host.terminal.count("write"), host.terminal.count("read")) == (1, 1)
    await host.prints(b"present\x1b]2;title\x07")
    host.terminal.detach(two)
    host.terminal.detach(two)
    await host.prints(b" alone\xff")
    assert shown(await read_all(two)) == ["past present"]
    host.terminal.detach(one)
    assert shown(await read_all(one)) == ["past present alone\ufffd"]
    assert (host.terminal.count("write"), host.terminal.count("read")) == (0, 0)
    assert not one.lagged


async def test_late_viewer_is_painted_what_an_early_one_has_seen(host: Host) -> None:
    early = host.terminal.attach()
    output = (
        b"\x1b[2J\x1b[5;10r\x1b[7;3H\x1b[1;44mred\x1b]0;old title\x07\x1b[6n\x1b[3;1Htop\r\n\xe4\xb8" * 50
    )
    for piece in (output[:1000], output[1000:]):
        await host.prints(piece)
    await host.terminal.screen()
    late = host.terminal.attach("read")
    await host.prints(b"\x96 \x1b[Kboth")
    for viewer in (early, late):
        host.terminal.detach(viewer)
    first, second = await read_all(early), await read_all(late)
    assert shown(first) == shown(second)
    assert "\u4e16 both" in shown(second)[3]
    assert b"title" not in second
    assert b"\x1b[6n" not in second


async def test_viewer_waits_for_output(host: Host) -> None:
    viewer = host.terminal.attach(picture=False)
    assert await viewer.read() == (24, 80)
    reading = asyncio.ensure_future(viewer.read())
    await asyncio.sleep(0)
    assert not reading.done()
    await host.prints(b"now")
    assert await asyncio.wait_for(reading, LONG) == b"now"


async def test_flood_costs_the_screen_its_past_and_nobody_anything_else(host: Host) -> None:
    await host.prints(b"\x1b[1mforgotten\x1b[m\r\n\x1b]0;half a title")
    await host.prints(b"flood\r\n" * (SCREEN_BEHIND // 2) + b"\x1b[H\x1b[2Jend")
    viewer = host.terminal.attach("read")
    host.terminal.detach(viewer)
    # What the screen has not taken yet comes behind its picture.
    picture = await read_all(viewer)
    assert shown(picture) == ["end"]
    assert len(picture) < SCREEN_BEHIND + 10_000
    assert (await host.terminal.screen()).lines()[:2] == ["end", ""]


async def test_output_without_end_costs_a_slow_viewer_its_place_and_nobody_else(host: Host) -> None:
    slow, quick = host.terminal.attach(), host.terminal.attach(picture=False)
    seen = 0

    async def follow() -> None:
        nonlocal seen
        while data := await quick.read():
            seen += 0 if isinstance(data, Size) else len(data)

    following = asyncio.ensure_future(follow())
    await host.prints(b"y" * (MAX_BEHIND + SIZE))
    assert (slow.ended, slow.lagged) == (True, True)
    assert await slow.read() == b""
    assert host.terminal.count("write") == 1
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
    viewer = host.terminal.attach("read", picture=False)
    assert await viewer.read() == (33, 99)
    for size in ((34, 99), (33, 99), (33, 99), (9999, 9999)):
        host.terminal.resize(*size)
    await host.prints(b"x")
    # Sizes that were over before they were read are passed over; a screen has its limit.
    assert await viewer.read() == (200, 500)
    assert await viewer.read() == b"x"
    assert host.resizes[1:] == [(34, 99), (33, 99), (33, 99), (9999, 9999)]
    host.resizes.clear()
    for size in ((0, 80), (24, 0), (10_000, 80), (24, 10_000), (-1, 80)):
        with pytest.raises(ValueError, match="window"):
            host.terminal.resize(*size)


async def test_end_of_the_guest_closes_it_after_the_last_words(host: Host) -> None:
    viewer = host.terminal.attach(picture=False)
    os.write(host.guest, b"last words")
    host.leave()
    assert await read_all(viewer) == b"last words"
    await wait_until_async(lambda: not host.terminal.is_open, 10, "the terminal to be closed")
    with pytest.raises(StateError):
        host.terminal.attach()
    with pytest.raises(StateError):
        host.terminal.write(b"x")
    host.terminal.resize(24, 80)
    assert host.resizes == []


async def test_close_ends_viewers_and_gives_up_input(host: Host) -> None:
    viewer = host.terminal.attach(picture=False)
    host.terminal.write(b"x" * 5000)
    host.terminal.close()
    host.terminal.close()
    assert await read_all(viewer) == b""


async def test_size_without_anybody_to_tell() -> None:
    master, slave = os.openpty()
    terminal = Terminal(master, ScreenFeed())
    terminal.resize(24, 80)
    terminal.close()
    os.close(slave)


async def test_terminal_that_is_taken_over_has_its_size_and_what_it_showed() -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("=4H", 5, 20, 0, 0))
    scrollback = Scrollback()
    scrollback.write(b"\x1b[3;3Hstill here")
    terminal = Terminal(master, ScreenFeed(), scrollback=scrollback)
    screen = await terminal.screen()
    assert screen.size == (5, 20)
    assert screen.lines() == ["", "", "  still here", "", ""]
    terminal.close()
    scrollback.close()
    os.close(slave)


async def test_descriptors_that_are_no_terminal_are_one() -> None:
    output, guest_out = os.pipe()
    guest_in, typed = os.pipe()
    recorded: list[bytes] = []
    terminal = Terminal(output, ScreenFeed(), input_fd=typed, on_output=recorded.append)
    terminal.resize(5, 9)
    os.write(guest_out, b"hello")
    await wait_until_async(lambda: recorded, 10, "the output")
    assert (await terminal.screen()).lines()[0] == "hello"
    terminal.write(b"typed")
    assert os.read(guest_in, 99) == b"typed"
    os.close(guest_in)
    # Nobody will read that.
    terminal.write(b"lost")
    assert terminal.is_open
    os.close(guest_out)
    await wait_until_async(lambda: not terminal.is_open, 10, "its end")
    assert recorded == [b"hello"]


async def test_screens_of_many_terminals_take_a_small_part_of_the_time() -> None:
    """Twenty guests that print without end: the loop goes on, and their screens are fed in turn."""
    feed = ScreenFeed()
    followers = [ScreenFollower(Screen(), feed) for _ in range(20)]
    for follower in followers:
        follower.receive(b"\x1b#8\x1b[9999b\x1b[99L" * 100_000)
    turns = 0
    end = asyncio.get_running_loop().time() + 0.5
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0)
        turns += 1
    assert all(len(each.behind) <= SCREEN_BEHIND for each in followers)
    assert any(len(each.behind) < SCREEN_BEHIND for each in followers)
    assert turns > 100
