"""One viewer of a guest's terminal, over any number of daemons."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator

from umlab._readable import readable
from umlab.cli.attach_face import Face, Plain, Shared, Watched
from umlab.client.aio import AsyncClient
from umlab.client.event import RETRY_INTERVAL, RETRY_TIME
from umlab.client.terminal import AsyncTerminal
from umlab.daemon.place import runtime_base
from umlab.errors import (
    ApiTimeout,
    ConnectionLost,
    LabError,
    LabNotRunning,
    LimitReached,
    NoSuchConsole,
    UmlabError,
)

#: Bytes that are typed at a time, and seconds that each of them takes: a guest's line is no faster.
_PIECE = 1024
_BYTE_TIME = 0.025 / 1024
#: Seconds of silence after which nothing more is expected once the input has ended.
_DRAIN_TIME = 1.0


class Session:
    """A viewer until it leaves, the guest ends, or no daemon comes back.

    Args:
        lab: The lab.
        guest: The guest.
        console: The console; ``None`` for the first terminal.
        key: What leaves, where standard input is a terminal.
        read_only: Only look.
    """

    def __init__(self, lab: str, guest: str, console: str | None, key: bytes, *, read_only: bool) -> None:
        self._lab = lab
        self._guest = guest
        self._console = console
        # The first terminal ends with its guest, others may end before.
        self._ending = guest if console is None else f"{guest} {console}"
        self._key = key
        self._read_only = read_only
        self._terminal: AsyncTerminal | None = None
        self._begun, self._heard = asyncio.Event(), asyncio.Event()
        self._has_said = self._is_sent = False
        #: Keys are typed by a person, who is told what happens, and wants to go on.
        self._is_person = os.isatty(0)
        self._face: Face
        if read_only:
            self._face = Watched(f"{guest}: only looking; {_shown(key)} leaves")
        else:
            self._face = Shared() if self._is_person and os.isatty(1) else Plain()

    async def run(self) -> None:
        """Look and type until the end.

        Raises:
            UmlabError: It cannot begin; the daemon has ended, and no other has come; or the guest has, and
                what was to be sent is lost.
        """
        if not self._is_person:
            # One that says nothing had ended before: a terminal echoes what is typed.
            if await self._converse() and not (self._has_said and self._is_sent):
                raise LabError(f"{self._ending} has ended, before it had all of the input")
            return
        try:
            with _raw_mode():
                ended = await self._converse()
        finally:
            self._face.close()
            # The guest's prompt stands on the last line.
            print(file=sys.stderr)
        text = f"{self._ending} has ended" if ended else f"detached from {self._guest}"
        print(f"umlab: {text}", file=sys.stderr)

    async def _converse(self) -> bool:
        """Pass bytes both ways until the user leaves or the guest ends; say whether the guest has ended."""
        output = asyncio.ensure_future(self._show())
        typed = asyncio.ensure_future(self._type())
        resized = asyncio.ensure_future(self._resize())
        tasks = {output, typed, resized}
        try:
            await asyncio.wait({output, typed}, return_when=asyncio.FIRST_COMPLETED)
            if output.done():
                output.result()
            else:
                typed.result()
            return output.done()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # What the guest prints.

    async def _show(self) -> None:
        """Show what the guest prints until it ends, from one daemon after the other."""
        lost_at: float | None = None
        while True:
            heard = False
            try:
                async with self._opened() as terminal:
                    lost_at = None
                    async for data in _output(terminal):
                        heard = self._has_said = True
                        self._heard.set()
                        await self._face.show(data, terminal.size)
                return
            except LimitReached:
                # Too slow for what was printed: a new picture is all that is missing.
                if not (self._is_person and heard):
                    raise
            except (ApiTimeout, ConnectionLost, LabNotRunning) as error:
                if lost_at is not None and not (runtime_base() / self._lab).exists():
                    # The lab was stopped, and its guests with it.
                    return
                lost_at = self._pause(lost_at, error)
                await asyncio.sleep(RETRY_INTERVAL)

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[AsyncTerminal]:
        async with AsyncClient(self._lab) as client:
            if self._console is None:
                self._console = await _first_terminal(client, self._guest)
            async with await client.terminal(self._guest, self._console, **self._face.options()) as terminal:
                if self._terminal is None and self._is_person:
                    self._face.open(f"umlab: {self._guest} {self._console}; {_shown(self._key)} leaves")
                self._terminal = terminal
                self._begun.set()
                yield terminal

    def _pause(self, lost_at: float | None, error: LabError) -> float:
        """Return since when there is no daemon; raise the error where nobody waits for another."""
        if self._terminal is None:
            raise error
        if not self._is_person:
            raise self._gone() from None
        now = time.monotonic()
        if lost_at is None:
            self._face.say(f"{self._lab}: the daemon has ended; waiting for the next one")
            return now
        if now - lost_at > RETRY_TIME:
            raise self._gone() from None
        return lost_at

    def _gone(self) -> LabError:
        return LabError(
            f"{self._lab}: the daemon ended, the guest {self._guest} may run on; "
            "attach again when the lab is up"
        )

    # What is typed.

    async def _type(self) -> None:
        async for data in _input():
            typed, key, _ = data.partition(self._key) if self._is_person else (data, b"", b"")
            if typed and not self._read_only:
                await self._send(typed)
            if key:
                return
            await asyncio.sleep(len(data) * _BYTE_TIME)
        self._is_sent = True
        # The input has ended: so much of the answer as comes without a pause.
        with contextlib.suppress(TimeoutError):
            while True:
                self._heard.clear()
                async with asyncio.timeout(_DRAIN_TIME):
                    await self._heard.wait()

    async def _send(self, data: bytes) -> None:
        await self._begun.wait()
        assert self._terminal is not None
        try:
            await self._terminal.write(data)
        except UmlabError:
            # What is typed while there is no daemon is lost, as the user has been told.
            if not self._is_person:
                raise

    async def _resize(self) -> None:
        """Tell the guest the size of this window whenever it changes."""
        if not os.isatty(1):
            return
        changed = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, changed.set)
        try:
            while True:
                await changed.wait()
                changed.clear()
                size = self._face.resize()
                if size is not None and self._terminal is not None and not self._read_only:
                    with contextlib.suppress(UmlabError):
                        await self._terminal.resize(*size)
        finally:
            loop.remove_signal_handler(signal.SIGWINCH)


async def _first_terminal(client: AsyncClient, guest: str) -> str:
    for each in await client.consoles(guest):
        if each.kind == "terminal":
            return each.name
    raise NoSuchConsole(guest, "con1")


async def _output(terminal: AsyncTerminal) -> AsyncIterator[bytes]:
    while data := await terminal.read():
        yield data


async def _input() -> AsyncIterator[bytes]:
    """Return what standard input has, without making it non-blocking: others may share it."""
    while True:
        # A file cannot be waited for, and has everything at once.
        with contextlib.suppress(PermissionError):
            await readable(0)
        data = os.read(0, _PIECE)
        if not data:
            return
        yield data


def _shown(key: bytes) -> str:
    return f"Ctrl-{chr(key[0] | 0x40)}"


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    """Let every key go to the guest, and put the terminal back whatever happens."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        # Answers of the terminal to what the guest has asked are nobody's input.
        termios.tcsetattr(0, termios.TCSAFLUSH, before)
