"""How what a guest prints is shown: as it is, on a terminal that is the guest's, or in a window."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Protocol

from umlab.client.terminal import TerminalOptions

if TYPE_CHECKING:
    from umlab.console.screen import Screen

#: Bytes of output that a screen takes before keys are looked at again.
_SLICE = 4096
#: Seconds between two drawings.
_FRAME_TIME = 0.04


class Face(Protocol):
    """Where output goes."""

    def options(self) -> TerminalOptions:
        """Return how the terminal is opened."""

    def open(self, text: str) -> None:
        """Begin; say what this is."""

    async def show(self, data: bytes, size: tuple[int, int]) -> None:
        """Show output of a screen of a size."""

    def say(self, text: str) -> None:
        """Tell the user something meanwhile."""

    def resize(self) -> tuple[int, int] | None:
        """Take the window's new size and return it; ``None`` where nobody has told it."""

    def close(self) -> None:
        """Give the terminal back."""


class Plain:
    """Output from the moment on when it is opened, for a file or another program; as it is, unless shown."""

    def __init__(self) -> None:
        from umlab.console.passage import Passage

        self._passage = Passage() if os.isatty(1) else None

    def options(self) -> TerminalOptions:
        """Return how the terminal is opened."""
        return {"picture": False}

    def open(self, text: str) -> None:
        """Begin; say what this is."""
        # The terminal is in raw mode.
        print(f"{text}\r", file=sys.stderr)

    async def show(self, data: bytes, size: tuple[int, int]) -> None:
        """Show output of a screen of a size."""
        _write(data if self._passage is None else self._passage.feed(data))

    def say(self, text: str) -> None:
        """Tell the user something meanwhile."""
        print(f"\r\numlab: {text}\r", file=sys.stderr)

    def resize(self) -> tuple[int, int] | None:
        """Take the window's new size and return it; ``None`` where nobody has told it."""
        return None

    def close(self) -> None:
        """Give the terminal back."""


class Shared:
    """A terminal that is the guest's for a while, see `umlab.console.passage`."""

    def __init__(self) -> None:
        from umlab.console.passage import Passage

        self._passage = Passage()
        self._opened = False

    def options(self) -> TerminalOptions:
        """Return how the terminal is opened."""
        size = _window()
        return {} if size is None else {"window": size}

    def open(self, text: str) -> None:
        """Begin; say what this is."""
        self._opened = True
        print(f"{text}\r", file=sys.stderr)
        rows, _ = _window() or (24, 80)
        # The picture takes the whole window: what stands there moves up.
        _write(b"\n" * rows)

    async def show(self, data: bytes, size: tuple[int, int]) -> None:
        """Show output of a screen of a size."""
        _write(self._passage.feed(data))

    def say(self, text: str) -> None:
        """Tell the user something meanwhile."""
        print(f"\r\numlab: {text}\r", file=sys.stderr)

    def resize(self) -> tuple[int, int] | None:
        """Take the window's new size and return it; ``None`` where nobody has told it."""
        return _window()

    def close(self) -> None:
        """Give the terminal back."""
        if self._opened:
            _write(self._passage.leave() + b"\x1b[J")


class Watched:
    """A window on the guest's screen, see `umlab.console.window`.

    Args:
        status: What its last line says.
    """

    def __init__(self, status: str) -> None:
        from umlab.console.window import Window

        self._status = status
        self._window = Window(*(_window() or (24, 80)), status)
        self._screen: Screen | None = None
        self._drawing: asyncio.TimerHandle | None = None

    def options(self) -> TerminalOptions:
        """Return how the terminal is opened."""
        return {"role": "read"}

    def open(self, text: str) -> None:
        """Begin; say what this is."""

    async def show(self, data: bytes, size: tuple[int, int]) -> None:
        """Show output of a screen of a size."""
        from umlab.console.screen import Screen

        if self._screen is None:
            self._screen = Screen(*size)
        elif self._screen.size != size:
            self._screen.resize(*size)
        for at in range(0, len(data), _SLICE):
            self._screen.feed(data[at : at + _SLICE])
            await asyncio.sleep(0)
        if self._drawing is None:
            self._drawing = asyncio.get_running_loop().call_later(_FRAME_TIME, self._draw)

    def say(self, text: str) -> None:
        """Tell the user something meanwhile."""
        self._window.status = text
        self._draw()
        # It says so until something is drawn again.
        self._window.status = self._status

    def resize(self) -> tuple[int, int] | None:
        """Take the window's new size and return it; ``None`` where nobody has told it."""
        size = _window()
        if size is not None:
            self._window.resize(*size)
            self._draw()
        return size

    def close(self) -> None:
        """Give the terminal back."""
        if self._drawing is not None:
            self._drawing.cancel()
        _write(self._window.leave())

    def _draw(self) -> None:
        self._drawing = None
        if self._screen is not None:
            _write(self._window.draw(self._screen))


def _window() -> tuple[int, int] | None:
    columns, rows = os.get_terminal_size(1)
    # A window without a size is one that nobody has told.
    return (rows, columns) if rows and columns else None


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
