"""A guest's terminal, shared by any number of viewers.

The daemon holds the master side of a pseudo terminal whose other side is a console of the guest.  What
the guest prints goes to every viewer and into a scrollback; what any viewer types goes to the guest.  A
viewer that does not read loses its place, never the guest's time or another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections import deque
from collections.abc import Callable

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


class Viewer:
    """One reader of a terminal, made by :meth:`Terminal.attach`."""

    def __init__(self, scrollback: bytes) -> None:
        self._waiting: deque[bytes] = deque([scrollback] if scrollback else [])
        self._size = len(scrollback)
        self._arrived = asyncio.Event()
        self.ended = False
        self.lagged = False

    async def read(self) -> bytes:
        """Return the output that has come since the last call, waiting for some.

        Returns:
            Raw bytes, untrusted; empty at the end: then ``lagged`` says whether this viewer was too slow.
        """
        while not self._waiting and not self.ended:
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        return data

    def feed(self, data: bytes) -> None:
        """Take output for this viewer."""
        if self.ended:
            return
        self._waiting.append(data)
        self._size += len(data)
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
        master: Master side of a pseudo terminal; belongs to this object from now on.
        scrollback: What it has printed, shown to new viewers; stays the caller's, open as long as this.
        on_resize: Is given rows and columns of each resize.

    Raises:
        OSError: This is no terminal.
    """

    def __init__(
        self, master: int, scrollback: Scrollback, on_resize: Callable[[int, int], None] | None = None
    ) -> None:
        self._on_resize = on_resize
        self._master = master
        os.set_blocking(master, False)
        self._loop = asyncio.get_running_loop()
        self._scrollback = scrollback
        self._viewers: set[Viewer] = set()
        self._input = bytearray()
        self._writing: asyncio.TimerHandle | None = None
        try:
            self._loop.add_reader(master, self._read)
        except OSError:
            os.close(master)
            raise

    @property
    def viewers(self) -> int:
        """How many viewers are attached."""
        return len(self._viewers)

    def attach(self) -> Viewer:
        """Add a viewer; it first gets the scrollback.

        Raises:
            StateError: The terminal is closed.
            LimitReached: It has 64 viewers.
        """
        if self._master < 0:
            raise StateError("the terminal is closed: its guest has ended")
        if len(self._viewers) >= MAX_VIEWERS:
            raise LimitReached(f"the terminal has {MAX_VIEWERS} viewers already")
        viewer = Viewer(self._scrollback.read())
        self._viewers.add(viewer)
        return viewer

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
        if self._master < 0:
            raise StateError("the terminal is closed: its guest has ended")
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
        if self._master >= 0:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("=4H", rows, columns, 0, 0))
            if self._on_resize is not None:
                self._on_resize(rows, columns)

    def close(self) -> None:
        """Close the master side; every viewer's reading ends.  Idempotent."""
        if self._master < 0:
            return
        self._loop.remove_reader(self._master)
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None
        os.close(self._master)
        self._master = -1
        for viewer in self._viewers:
            viewer.end()
        self._viewers.clear()

    def _read(self) -> None:
        try:
            data = os.read(self._master, _READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # Nobody has the other side open.
            data = b""
        if not data:
            self.close()
            return
        self._scrollback.write(data)
        for viewer in list(self._viewers):
            viewer.feed(data)
            if viewer.ended:
                self._viewers.discard(viewer)

    def _write(self) -> None:
        self._writing = None
        if not self._input:
            return
        # A guest that does not read: tried again later.
        with contextlib.suppress(BlockingIOError):
            written = os.write(self._master, self._input[:_PIECE])
            del self._input[:written]
        self._writing = self._loop.call_later(_PIECE_TIME, self._write)
