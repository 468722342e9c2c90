"""A program on a terminal with a screen: what a person would see there, and a terminal's own answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import pyte

from support.deadline import deadline
from support.terminal_session import TerminalSession


class _Screen(pyte.Screen):
    """Answers questions, such as where the cursor is."""

    def __init__(self, columns: int, rows: int, reply: Callable[[str], None]) -> None:
        super().__init__(columns, rows)
        self._reply = reply

    def write_process_input(self, data: str) -> None:
        self._reply(data)


class ScreenSession(TerminalSession):
    """Runs a program until the block ends; see `TerminalSession`."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (24, 80)) -> None:
        rows, columns = size
        self._screen = _Screen(columns, rows, self.type)
        self._stream = pyte.ByteStream(self._screen)
        super().__init__(argv, env, size)

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._pid

    @property
    def lines(self) -> list[str]:
        """The lines of the screen, without blanks at their ends."""
        return [line.rstrip() for line in self._screen.display]

    def style_of(self, text: str) -> pyte.screens.Char:
        """Return the first character of a text on the screen, which knows its colours."""
        for row, line in enumerate(self._screen.display):
            if text in line:
                return self._screen.buffer[row][line.index(text)]
        raise AssertionError(f"no {text!r} in {self.lines}")

    def wait_for_line(self, wanted: Callable[[str], bool], what: str, seconds: float = 20) -> str:
        """Read until the screen has a line as it is wanted, and return that line.

        Args:
            wanted: Says whether a line is it.
            what: What is waited for, for the message.
            seconds: The time limit before scaling.
        """
        end = deadline(seconds)
        while True:
            for line in self.lines:
                if wanted(line):
                    return line
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {what} on the screen: {[line for line in self.lines if line]}")

    def _read(self, seconds: float) -> bool:
        before = len(self.shown)
        is_open = super()._read(seconds)
        self._stream.feed(self.shown[before:])
        return is_open
