"""What a terminal shows, kept up with what it was sent, and painted for whoever comes later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pyte.screens import Char

from umlab.console import paint
from umlab.console.grid import (
    CURSOR_SHOWN,
    INSERT,
    KEYPAD,
    MODES,
    NEW_LINE,
    ORIGIN,
    PRIVATE,
    WRAP,
    Grid,
    Row,
    Saved,
)
from umlab.console.sequence import Kind, Splitter

#: Lines and columns of a screen; what a larger window has beyond is not kept.
MAX_ROWS, MAX_COLUMNS = 200, 500
#: The size of a terminal that nobody has told one.
DEFAULT_SIZE = (24, 80)
_MAX_NUMBER = 9999
_PREFIXES = "<=>?"

_CONTROLS: dict[str, Callable[[Grid], object]] = {
    "\x08": Grid.backspace,
    "\t": Grid.tab,
    "\n": Grid.linefeed,
    "\x0b": Grid.linefeed,
    "\x0c": Grid.linefeed,
    "\r": Grid.carriage_return,
    "\x0e": Grid.shift_out,
    "\x0f": Grid.shift_in,
}
_ESCAPES: dict[str, Callable[[Grid], object]] = {
    "7": Grid.save_cursor,
    "8": Grid.restore_cursor,
    "c": Grid.reset,
    "D": Grid.index,
    "E": Grid.next_line,
    "H": Grid.set_tab_stop,
    "M": Grid.reverse_index,
    "=": lambda grid: grid.switch_mode(KEYPAD, True),
    ">": lambda grid: grid.switch_mode(KEYPAD, False),
    "#8": Grid.alignment_display,
}
#: By the last character; each takes its first parameter, 0 where it is left out.
_SEQUENCES: Mapping[str, Callable[[Grid, int], object]] = {
    "@": Grid.insert_characters,
    "A": Grid.cursor_up,
    "B": Grid.cursor_down,
    "C": Grid.cursor_forward,
    "D": Grid.cursor_back,
    "E": Grid.cursor_down1,
    "F": Grid.cursor_up1,
    "G": Grid.cursor_to_column,
    "I": lambda grid, count: grid.move_tabs(count or 1),
    "J": Grid.erase_in_display,
    "K": Grid.erase_in_line,
    "L": Grid.insert_lines,
    "M": Grid.delete_lines,
    "P": Grid.delete_characters,
    "S": lambda grid, count: grid.scroll(count or 1),
    "T": lambda grid, count: grid.scroll(-(count or 1)),
    "X": Grid.erase_characters,
    "Z": lambda grid, count: grid.move_tabs(-(count or 1)),
    "`": Grid.cursor_to_column,
    "a": Grid.cursor_forward,
    "b": lambda grid, count: grid.repeat(count or 1),
    "d": Grid.cursor_to_line,
    "e": Grid.cursor_down,
    "g": Grid.clear_tab_stop,
    "s": lambda grid, _: grid.save_cursor(),
    "u": lambda grid, _: grid.restore_cursor(),
}


class Screen:
    """A terminal's screen.

    Whatever it is fed, it raises nothing, keeps nothing beyond its size, and answers nothing.

    Args:
        rows: Its height.
        columns: Its width.
    """

    def __init__(self, rows: int = DEFAULT_SIZE[0], columns: int = DEFAULT_SIZE[1]) -> None:
        self._grid = Grid(min(columns, MAX_COLUMNS), min(rows, MAX_ROWS))
        self._splitter = Splitter()

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self._grid.lines, self._grid.columns

    @property
    def cursor(self) -> tuple[int, int]:
        """The cursor's row and column, from 0; behind the last column it waits to wrap."""
        return self._grid.cursor.y, self._grid.cursor.x

    @property
    def cursor_shown(self) -> bool:
        """Whether the cursor is to be seen."""
        return CURSOR_SHOWN in self._grid.mode

    @property
    def is_alternate(self) -> bool:
        """Whether a program uses the alternate screen, as editors do."""
        return self._grid.main is not None

    def row(self, y: int) -> list[Char]:
        """Return the cells of a row; behind a wide one comes an empty one."""
        return _cells(self._grid.buffer, y, self._grid.columns)

    def lines(self) -> list[str]:
        """Return every row as text, without the blanks at its end."""
        return ["".join(cell.data for cell in self.row(y)).rstrip() for y in range(self._grid.lines)]

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the row with the cursor stays."""
        self._grid.resize(min(rows, MAX_ROWS), min(columns, MAX_COLUMNS))

    def forget_sequence(self) -> None:
        """Take what comes next for the beginning of something: what came before it is lost."""
        self._splitter = Splitter()

    def feed(self, data: bytes) -> None:
        """Take what the terminal is sent."""
        for kind, text in self._splitter.feed(data):
            if kind is Kind.TEXT:
                self._grid.draw(text)
            elif kind is Kind.CONTROL:
                if (control := _CONTROLS.get(text)) is not None:
                    control(self._grid)
            elif kind is Kind.CSI:
                self._sequence(text[2:-1], text[-1])
            elif text[1] in "()" and len(text) == 3:
                self._grid.define_charset(text[2], text[1])
            elif (escape := _ESCAPES.get(text[1:])) is not None:
                escape(self._grid)

    def _sequence(self, text: str, last: str) -> None:
        grid = self._grid
        if (text, last) == ("!", "p"):
            grid.soft_reset()
            return
        prefix = text[:1] if text[:1] in _PREFIXES else ""
        words = text.removeprefix(prefix).split(";")
        if not all(word.isdigit() or not word for word in words):
            return
        numbers = [min(int(word or 0), _MAX_NUMBER) for word in words]
        if last in "hl" and prefix in ("", "?"):
            for number in numbers:
                if prefix or number in (INSERT, NEW_LINE):
                    grid.switch_mode(number << PRIVATE if prefix else number, last == "h")
        elif prefix not in (("?", "") if last in "JK" else ("",)):
            return
        elif last == "m":
            grid.select_graphic_rendition(*numbers)
        elif last in "Hf":
            grid.cursor_position(*numbers[:2])
        elif last == "r":
            grid.set_margins(*numbers[:2])
        elif (operation := _SEQUENCES.get(last)) is not None:
            operation(grid, numbers[0])

    # For others.

    def paint(self) -> bytes:
        """Return what makes a terminal of this size show the same and behave alike for all that follows.

        Of our own making: renditions, cursor moves, modes and text from the cells.
        """
        grid = self._grid
        out = ["\x1b[!p\x1b[?7h\x1b[?1049l"]
        if grid.main is not None:
            rows, saved = grid.main
            out += [self._paint_rows(rows), _take(saved), "\x1b[?1049h"]
        out.append(self._paint_rows(grid.buffer))
        if grid.tabstops != set(range(8, grid.columns, 8)):
            out.append("\x1b[3g" + "".join(f"\x1b[{stop + 1}G\x1bH" for stop in sorted(grid.tabstops)))
        if grid.margins is not None:
            out.append(f"\x1b[{grid.margins.top + 1};{grid.margins.bottom + 1}r")
        out += [_take(grid.saved), "\x1b7"]
        out += [_switch(mode, mode in grid.mode) for mode in MODES if mode not in (INSERT, ORIGIN, WRAP)]
        out.append(self._paint_cursor())
        return "".join(out).encode() + self._splitter.pending

    def _paint_rows(self, rows: dict[int, Row]) -> str:
        out = ["\x1b[0m\x1b(B\x1b)B\x0f\x1b[2J"]
        cursor = self._grid.cursor
        for y in range(self._grid.lines):
            # Programs that read a terminal know a prompt by the blank at its end.
            least = cursor.x if y == cursor.y else 0
            if row := paint.trimmed(_cells(rows, y, self._grid.columns), least):
                out += [paint.move(y, 0), paint.cells(row)]
        return "".join(out)

    def _paint_cursor(self) -> str:
        grid, cursor = self._grid, self._grid.cursor
        out = []
        y = cursor.y
        if ORIGIN in grid.mode:
            out.append(_switch(ORIGIN, True))
            y -= grid.margins.top if grid.margins else 0
        if cursor.x < grid.columns:
            out.append(paint.move(y, cursor.x))
        else:
            # It waits to wrap: so does one that has just written the last column.
            row = self.row(cursor.y)
            x = grid.columns - 1 if row[-1].data else grid.columns - 2
            out += ["\x1b(B\x0f", paint.move(y, x), paint.cells(row[x : x + 1])]
        out.append(_style(cursor.attrs, grid.designations, grid.charset))
        out += [_switch(INSERT, True)] if INSERT in grid.mode else []
        out += [_switch(WRAP, False)] if WRAP not in grid.mode else []
        return "".join(out)


def _cells(rows: dict[int, Row], y: int, columns: int) -> list[Char]:
    row: Any = rows.get(y)
    return [paint.BLANK] * columns if row is None else [row[x] for x in range(columns)]


def _take(saved: Saved) -> str:
    """Return what makes the cursor this one."""
    return paint.move(saved.y, saved.x) + _style(saved.attrs, saved.designations, saved.charset)


def _style(attrs: Char, designations: tuple[str, str], charset: int) -> str:
    first, second = designations
    return f"{paint.rendition(attrs)}\x1b({first}\x1b){second}" + ("\x0e" if charset else "\x0f")


def _switch(mode: int, on: bool) -> str:
    number = str(mode) if mode in (INSERT, NEW_LINE) else f"?{mode >> PRIVATE}"
    return f"\x1b[{number}{'h' if on else 'l'}"
