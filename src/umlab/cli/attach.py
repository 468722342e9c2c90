"""``umlab guest attach``: this terminal becomes one of a guest."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from umlab.cli.option import GuestName

if TYPE_CHECKING:
    import asyncio

    from umlab.client.aio import AsyncClient
    from umlab.client.terminal import AsyncTerminal

EPILOG = """
Examples:

  umlab guest attach left

  umlab guest attach ring/left --console con1

  echo uptime | umlab guest attach left
"""

#: Ctrl-] leaves, as in telnet.
DETACH_KEY = b"\x1d"
#: Bytes that are typed at a time, and seconds that each of them takes: a guest's line is no faster.
_PIECE = 1024
_BYTE_TIME = 0.025 / 1024
#: Seconds of silence after which nothing more is expected once the input has ended.
_DRAIN_TIME = 1.0


def attach(
    name: GuestName,
    console: Annotated[
        str | None,
        typer.Option("--console", help="The console; the first terminal unless given.", show_default=False),
    ] = None,
) -> None:
    """Type into a guest and see what it prints; Ctrl-] leaves, and the guest does not notice.

    Where standard input is no terminal, all of it is sent, and what the guest answers is printed until it has
    been silent for a second.
    """
    from umlab.cli.interrupt import run_interruptible
    from umlab.cli.target import guest_place
    from umlab.errors import ConnectionLost, LabError

    lab, guest = guest_place(name)
    try:
        run_interruptible(_attach(lab, guest, console))
    except ConnectionLost:
        if os.isatty(0):
            # The guest's prompt stands on the last line.
            print(file=sys.stderr)
        raise LabError(
            f"{lab}: the daemon ended, the guest {guest} may run on; attach again when the lab is up"
        ) from None


async def _attach(lab: str, guest: str, console: str | None) -> None:
    from umlab.client.aio import AsyncClient

    async with AsyncClient(lab) as client:
        name = console or await _first_terminal(client, guest)
        async with await client.terminal(guest, name) as terminal:
            if os.isatty(0):
                print(f"umlab: {guest} {name}; Ctrl-] leaves", file=sys.stderr)
                with _raw_mode():
                    ended = await _converse(terminal)
                # The guest's prompt stands on the last line.
                print(
                    f"\numlab: {guest} has ended" if ended else f"\numlab: detached from {guest}",
                    file=sys.stderr,
                )
            else:
                await _converse(terminal)


async def _first_terminal(client: AsyncClient, guest: str) -> str:
    from umlab.errors import NoSuchConsole

    for each in await client.consoles(guest):
        if each.kind == "terminal":
            return each.name
    raise NoSuchConsole(guest, "con1")


async def _converse(terminal: AsyncTerminal) -> bool:
    """Pass bytes both ways until the user leaves or the guest ends; return whether the guest has ended."""
    import asyncio

    heard = asyncio.Event()
    output = asyncio.ensure_future(_show(terminal, heard))
    typed = asyncio.ensure_future(_type(terminal, heard))
    resized = asyncio.ensure_future(_resize(terminal))
    tasks = {output, typed, resized}
    try:
        await asyncio.wait({output, typed}, return_when=asyncio.FIRST_COMPLETED)
        for task in (output, typed):
            if task.done():
                task.result()
        return output.done()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _show(terminal: AsyncTerminal, heard: asyncio.Event) -> None:
    while data := await terminal.read():
        heard.set()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


async def _type(terminal: AsyncTerminal, heard: asyncio.Event) -> None:
    import asyncio

    is_terminal = os.isatty(0)
    async for data in _input():
        typed, key, _ = data.partition(DETACH_KEY) if is_terminal else (data, b"", b"")
        if typed:
            await terminal.write(typed)
        if key:
            return
        await asyncio.sleep(len(data) * _BYTE_TIME)
    # The input has ended: so much of the answer as comes without a pause.
    with contextlib.suppress(TimeoutError):
        while True:
            heard.clear()
            async with asyncio.timeout(_DRAIN_TIME):
                await heard.wait()


async def _input() -> AsyncIterator[bytes]:
    """Return what standard input has, without making it non-blocking: others may share it."""
    from umlab.client.aio import readable

    while True:
        # A file cannot be waited for, and has everything at once.
        with contextlib.suppress(PermissionError):
            await readable(0)
        data = os.read(0, _PIECE)
        if not data:
            return
        yield data


async def _resize(terminal: AsyncTerminal) -> None:
    """Tell the guest the size of this window, now and whenever it changes."""
    import asyncio
    import signal

    if not os.isatty(1):
        return
    changed = asyncio.Event()
    changed.set()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            columns, rows = os.get_terminal_size(1)
            # A window without a size is one that nobody has told.
            if rows and columns:
                await terminal.resize(rows, columns)
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    """Let every key go to the guest, and put the terminal back whatever happens."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
