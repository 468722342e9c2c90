"""A guest's screen in a window of another size, for a viewer that only looks.

What is written is of our own making: moves of the cursor, renditions, erasing the rest of a line, showing and
hiding the cursor, the alternate screen, and text from the cells.  Nothing of a guest reaches the terminal
but printable characters.
"""

from __future__ import annotations

from pyte.screens import Char

from umlab.console import paint
from umlab.console.screen import Screen

_ENTER, _LEAVE = "\x1b[?1049h", "\x1b[0m\x1b[?25h\x1b[?1049l"
_STATUS = Char(" ", reverse=True)


class Window:
    """The part of a screen that a terminal shows: the one with the cursor.

    Args:
        rows: The terminal's height; its last line is for the status.
        columns: Its width.
        status: What the last line says, printable.

    Attributes:
        status: What the last line says.
    """

    def __init__(self, rows: int, columns: int, status: str) -> None:
        self.status = status
        self._top = self._left = 0
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """Take another size: all is drawn anew."""
        self._rows, self._columns = max(1, rows - 1), columns
        self._drawn: list[list[Char]] | None = None
        self._has_status = rows > 1

    def draw(self, screen: Screen) -> bytes:
        """Return what makes the terminal show the screen."""
        y, x = screen.cursor
        height, width = screen.size
        x = min(x, width - 1)
        self._top = _moved(self._top, y, self._rows, height)
        self._left = _moved(self._left, x, self._columns, width)
        rows = [self._row(screen, y) for y in range(self._top, min(self._top + self._rows, height))]
        rows += [[] for _ in range(self._rows - len(rows))]
        if self._has_status:
            text = self.status[: self._columns].ljust(self._columns)
            rows.append([_STATUS._replace(data=char) for char in text])
        out = ["\x1b[?25l"]
        if self._drawn is None:
            out.append(_ENTER + "\x1b[0m\x1b[2J")
        before = self._drawn or [[]] * len(rows)
        for line, (row, old) in enumerate(zip(rows, before, strict=True)):
            if row != old:
                out += [paint.move(line, 0), paint.cells(row)]
                if len(row) < self._columns:
                    out.append("\x1b[0m\x1b[K")
        self._drawn = rows
        out.append(paint.move(y - self._top, x - self._left))
        if screen.cursor_shown:
            out.append("\x1b[?25h")
        return "".join(out).encode()

    def leave(self) -> bytes:
        """Return what gives the terminal back as it was."""
        return b"" if self._drawn is None else _LEAVE.encode()

    def _row(self, screen: Screen, y: int) -> list[Char]:
        row = screen.row(y)[self._left : self._left + self._columns + 1]
        # Of a wide character at an edge half is cut off.
        if not row[0].data:
            row[0] = row[0]._replace(data=" ")
        if len(row) > self._columns and not row.pop().data:
            row[-1] = row[-1]._replace(data=" ")
        return list(paint.trimmed(row))


def _moved(start: int, cursor: int, size: int, whole: int) -> int:
    """Return where a window begins, moved as little as shows the cursor and no more than there is."""
    start = min(start, max(0, whole - size))
    return min(max(start, cursor - size + 1), cursor)
