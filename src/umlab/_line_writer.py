"""Lines for standard output and standard error: out at once, and never a reason to stop or to wait.

A switch outlives the pipe that its log goes into, and it must not stand still because somebody has
stopped the terminal that shows it.  So every line is written by itself, errors are ignored, and what a
reader does not take waits here up to a limit.
"""

from __future__ import annotations

import contextlib
import os
import select
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable

#: Lines that wait for a slow reader; later ones are counted and not kept.
MAX_WAITING = 20_000
#: A pipe that is writable takes this much at once without blocking (PIPE_BUF).
_PIECE = 4096


def write_now(fd: int, text: str) -> None:
    """Write a text and a line end, waiting for the reader if need be; a reader that left is ignored."""
    data = _encode(text)
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]


def _lost_line(count: int) -> str:
    return f"({count} lines lost: nobody read them)"


class LineWriter:
    """Writes lines to a descriptor that others use as well, so that it has to stay a blocking one.

    Args:
        fd: Where the lines go.
        loop: Writes what the reader does not take at once.
        lost_line: Makes the line that stands for lines that nobody read, of their number.
    """

    def __init__(
        self, fd: int, loop: AbstractEventLoop, lost_line: Callable[[int], str] = _lost_line
    ) -> None:
        self._fd = fd
        self._loop = loop
        self._lost_line = lost_line
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        self._watched = False

    def write(self, line: str) -> None:
        """Write one line now, or as soon as the reader takes it."""
        self.write_bytes(_encode(line))

    def write_bytes(self, data: bytes) -> None:
        """Write bytes as they are, such as a prompt, which has no line end."""
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            return
        self._waiting.append(data)
        if not self._watched:
            self._flush()

    def close(self) -> None:
        """Write what the reader takes right now and forget the rest."""
        self._flush()
        self._waiting.clear()
        self._watch(False)

    def _flush(self) -> None:
        while self._waiting and self._writable():
            line = self._waiting.popleft()
            # A reader that left, or a full disk, costs this line.
            with contextlib.suppress(OSError):
                written = os.write(self._fd, line[:_PIECE])
                if written < len(line):
                    self._waiting.appendleft(line[written:])
            if not self._waiting and self._lost:
                self._waiting.append(_encode(self._lost_line(self._lost)))
                self._lost = 0
        # What cannot be written at once is no regular file, which the loop could not watch.
        self._watch(bool(self._waiting))

    def _writable(self) -> bool:
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        return bool(poll.poll(0))

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self._loop.add_writer(self._fd, self._flush)
        elif self._watched and not wanted:
            self._loop.remove_writer(self._fd)
        self._watched = wanted


def _encode(text: str) -> bytes:
    return os.fsencode(text) + b"\n"
