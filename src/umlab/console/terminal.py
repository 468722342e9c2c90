"""A guest's terminal, shared by any number of viewers.

The daemon holds one side of a pseudo terminal, or descriptors, whose other side is a console of the guest.
What the guest prints goes to every viewer; what any viewer types goes to the guest.  A viewer that comes
late is painted the screen as it is.  A viewer that does not read loses its place, never the guest's time or
another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple

from umlab.console.feed import ScreenFeed, ScreenFollower
from umlab.console.screen import DEFAULT_SIZE, Screen
from umlab.console.scrollback import Scrollback
from umlab.errors import LimitReached, StateError

#: Bytes that wait for one viewer; one that falls further behind is dropped.
MAX_BEHIND = 1 << 20
#: Bytes that wait for the guest; more is refused.
MAX_INPUT = 64 * 1024
#: Viewers of one terminal at a time.
MAX_VIEWERS = 64
_READ_SIZE = 16 * 1024
#: A UML line that gets 4 KiB at once may stop for ever: less than half of that goes out at a time,
_PIECE = 1024
#: and so many seconds apart.
_PIECE_TIME = 0.02


#: What a viewer may do: ``write`` types and resizes as well, ``read`` only looks.
Role = Literal["write", "read"]


class Size(NamedTuple):
    """How large a screen is."""

    rows: int
    columns: int


class Viewer:
    """One reader of a terminal, made by :meth:`Terminal.attach`.

    Args:
        role: What it may do.
        size: How large the screen is.
        picture: What paints it; does not count as output that waits.

    Attributes:
        role: What it may do.
        ended: Nothing comes any more after what waits.
        lagged: It read too slowly and has lost its place.
    """

    def __init__(self, role: Role, size: Size, picture: bytes) -> None:
        self.role = role
        self.ended = False
        self.lagged = False
        self._waiting: deque[bytes | Size] = deque([size, picture] if picture else [size])
        self._size = 0
        self._arrived = asyncio.Event()

    async def read(self) -> bytes | Size:
        """Return what has come since the last call, waiting for something.

        Returns:
            The screen's size: at first, and whenever it has changed.  Or raw bytes, untrusted; empty at the
            end: then ``lagged`` says whether this viewer was too slow.
        """
        while not self._waiting and not self.ended:
            self._arrived.clear()
            await self._arrived.wait()
        output = bytearray()
        while self._waiting:
            each = self._waiting[0]
            if isinstance(each, Size):
                if output:
                    break
                self._waiting.popleft()
                return each
            output += each
            self._size = max(0, self._size - len(each))
            self._waiting.popleft()
        return bytes(output)

    def feed(self, output: bytes | Size) -> None:
        """Take output, or a new size, for this viewer."""
        if self.ended:
            return
        if isinstance(output, Size) and self._waiting and isinstance(self._waiting[-1], Size):
            self._waiting.pop()
        self._waiting.append(output)
        self._size += 0 if isinstance(output, Size) else len(output)
        if self._size > MAX_BEHIND:
            self.lagged = True
            self._waiting.clear()
            self.end()
        self._arrived.set()

    def end(self) -> None:
        """Let its reading come to an end after what waits."""
        self.ended = True
        self._arrived.set()


class Terminal:
    """The host's side of one terminal.

    All calls belong to the thread of the event loop in which it was made.

    Args:
        fd: One side of a pseudo terminal, or where the guest's output comes from; belongs to this object from
            now on.
        feed: Who keeps its screen up with the output.
        scrollback: What it has printed: the screen begins with it; stays the caller's, open as long as this.
        input_fd: Where typed bytes go, unless to ``fd``; belongs to this object as well.
        on_resize: Is given rows and columns of each resize.
        on_output: Is given all that is printed.

    Raises:
        OSError: This is no terminal.
    """

    def __init__(
        self,
        fd: int,
        feed: ScreenFeed,
        *,
        scrollback: Scrollback | None = None,
        input_fd: int | None = None,
        on_resize: Callable[[int, int], None] | None = None,
        on_output: Callable[[bytes], None] | None = None,
    ) -> None:
        self._on_resize = on_resize
        self._on_output = on_output
        self._fd = fd
        self._input_fd = fd if input_fd is None else input_fd
        self._loop = asyncio.get_running_loop()
        self._scrollback = scrollback
        self._viewers: set[Viewer] = set()
        self._input = bytearray()
        self._writing: asyncio.TimerHandle | None = None
        self._follower = ScreenFollower(Screen(*_window(fd)), feed)
        try:
            for each in {fd, self._input_fd}:
                os.set_blocking(each, False)
            self._loop.add_reader(fd, self._read)
        except OSError:
            self._close_fds()
            raise
        if scrollback is not None:
            self._follower.receive(scrollback.read())

    @property
    def is_open(self) -> bool:
        """Whether the guest has it open, as far as is known."""
        return self._fd >= 0

    def count(self, role: Role) -> int:
        """Return how many viewers of a role are attached."""
        return sum(viewer.role == role for viewer in self._viewers)

    def attach(self, role: Role = "write", *, picture: bool = True) -> Viewer:
        """Add a viewer.

        It first gets the screen's size; what paints the screen, of our making; and what was printed just
        now and is not part of that yet.

        Args:
            role: What it may do.
            picture: Whether the screen is painted for it; otherwise it gets what is printed from now on.

        Raises:
            StateError: The terminal is closed.
            LimitReached: It has 64 viewers.
        """
        self._check_open()
        if len(self._viewers) >= MAX_VIEWERS:
            raise LimitReached(f"the terminal has {MAX_VIEWERS} viewers already")
        screen = self._follower.screen
        viewer = Viewer(role, Size(*screen.size), screen.paint() + self._follower.behind if picture else b"")
        self._viewers.add(viewer)
        return viewer

    async def screen(self) -> Screen:
        """Return the screen with all that was printed until now; it is only to be looked at."""
        await self._follower.catch_up()
        return self._follower.screen

    def detach(self, viewer: Viewer) -> None:
        """Remove a viewer.  Idempotent."""
        self._viewers.discard(viewer)
        viewer.end()

    def write(self, data: bytes) -> None:
        """Type bytes; they are sent at the guest's speed.

        Raises:
            StateError: The terminal is closed.
            LimitReached: The guest does not read and 64 KiB wait already; nothing of ``data`` is kept.
        """
        self._check_open()
        if len(self._input) + len(data) > MAX_INPUT:
            raise LimitReached(f"the guest does not read: {len(self._input)} bytes wait for it")
        self._input += data
        if self._writing is None:
            self._write()

    def resize(self, rows: int, columns: int) -> None:
        """Tell the guest how large the window is, in characters, 1 to 9999 each.

        Raises:
            ValueError: A number is out of that range.
        """
        if not (1 <= rows <= 9999 and 1 <= columns <= 9999):
            raise ValueError(f"a window of {rows} x {columns} characters")
        if self._fd < 0:
            return
        # Descriptors that are no terminal have no size.
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))
        screen = self._follower.screen
        before = screen.size
        screen.resize(rows, columns)
        if screen.size != before:
            self._show(Size(*screen.size))
        if self._on_resize is not None:
            self._on_resize(rows, columns)

    def close(self) -> None:
        """Close the descriptors; every viewer's reading ends.  Idempotent."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        self._close_fds()
        for viewer in self._viewers:
            viewer.end()
        self._viewers.clear()

    def _check_open(self) -> None:
        if self._fd < 0:
            raise StateError("the terminal is closed: its guest has ended")

    def _close_fds(self) -> None:
        for each in {self._fd, self._input_fd}:
            os.close(each)
        self._fd = self._input_fd = -1

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            # Nobody has the other side open.
            data = b""
        if not data:
            self.close()
            return
        if self._scrollback is not None:
            self._scrollback.write(data)
        if self._on_output is not None:
            self._on_output(data)
        self._follower.receive(data)
        self._show(data)

    def _show(self, output: bytes | Size) -> None:
        for viewer in list(self._viewers):
            viewer.feed(output)
            if viewer.ended:
                self._viewers.discard(viewer)

    def _write(self) -> None:
        self._writing = None
        if not self._input:
            return
        try:
            written = os.write(self._input_fd, self._input[:_PIECE])
        except BlockingIOError:
            # The guest does not read: tried again later.
            written = 0
        except OSError:
            # It has closed its side, which is told where its output ends.
            self._input.clear()
            return
        del self._input[:written]
        self._writing = self._loop.call_later(_PIECE_TIME, self._write)


def _window(fd: int) -> tuple[int, int]:
    """Return rows and columns of a terminal; the usual ones where nobody has told it any."""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return DEFAULT_SIZE
    return (rows, columns) if rows and columns else DEFAULT_SIZE
