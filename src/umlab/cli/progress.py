"""How far work is that takes longer than a moment, on standard error."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from umlab.wire.text import printable_line

#: Seconds in which nothing is said.
_SILENCE = 1.0


class ProgressLine:
    """A line that says how far something is; a context manager that removes it.

    Nothing is shown in the first second. On a terminal the line is written over, elsewhere there is a new one
    now and then.

    Args:
        what: What is done; names of files are shown as a terminal can.
    """

    def __init__(self, what: str) -> None:
        self._what = printable_line(os.fsencode(what))
        self._terminal = sys.stderr.isatty()
        self._next = time.monotonic() + _SILENCE
        self._shown = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def clear(self) -> None:
        """Remove the line, before something else is printed."""
        if self._shown and self._terminal:
            self._shown = False
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, done: int, total: int) -> None:
        """Show how much of it all is done, in bytes where nobody knows how much it is: ``total`` is 0."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + (0.2 if self._terminal else 10)
        self._shown = True
        text = f"{self._what}: " + (f"{min(done * 100 // total, 100)} %" if total else f"{done >> 20} MiB")
        end = "" if self._terminal else "\n"
        print(f"\r{text}" if self._terminal else text, end=end, file=sys.stderr, flush=True)


@contextmanager
def told_if_long(text: str) -> Iterator[None]:
    """Say on standard error what is done, where that takes longer than a second."""
    timer = threading.Timer(_SILENCE, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
