"""The cells of a terminal's screen, and what its controls do to them.

pyte's screen, whose operations are replaced where they fail, grow or take long on what a hostile guest
sends, or where they do not do what xterm does.  Every operation is bounded by the size of the screen.

Source: xterm's ctlseqs, ECMA-48.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from pyte import charsets, modes
from pyte.screens import Char, Cursor, Margins, Screen, StaticDefaultDict, wcwidth

#: Code points of one cell: a character and what is combined with it.
_MAX_CELL = 4
_BLANK = Char(" ")
#: The line drawing characters, which stand in place of small letters.
_GRAPHICS = {code: charsets.VT100_MAP[code] for code in range(0x5F, 0x7F)}
#: Private modes are kept as pyte does it.
PRIVATE = 5
#: Application keypad: ``ESC =`` and ``ESC >`` stand for this mode.
KEYPAD = 66 << PRIVATE
INSERT, NEW_LINE = modes.IRM, modes.LNM
WRAP, ORIGIN, CURSOR_SHOWN = modes.DECAWM, modes.DECOM, modes.DECTCEM
#: Private modes that a screen remembers: cursor keys, reverse screen, origin, wrap, cursor, keypad, mouse,
#: bracketed paste.
_PRIVATE_MODES = (1, 5, 6, 7, 25, 66, 1000, 1002, 1003, 1006, 2004)
MODES = (INSERT, NEW_LINE, *(number << PRIVATE for number in _PRIVATE_MODES))

Row = StaticDefaultDict[int, Char]


@dataclass(frozen=True, slots=True)
class Saved:
    """A cursor that was put away.

    Attributes:
        x: Its column, from 0.
        y: Its line, from 0.
        attrs: How it writes.
        designations: The character sets G0 and G1: ``B`` is ASCII, ``0`` is line drawing.
        charset: Which of them it writes with.
    """

    x: int = 0
    y: int = 0
    attrs: Char = _BLANK
    designations: tuple[str, str] = ("B", "B")
    charset: int = 0


class Grid(Screen):
    """The screen.

    Args:
        columns: Its width.
        lines: Its height.

    Attributes:
        designations: The character sets G0 and G1.
        saved: The cursor that was put away.
        main: While programs use the alternate screen: the other one's rows and saved cursor.
    """

    def __init__(self, columns: int, lines: int) -> None:
        self.designations = ("B", "B")
        self.saved = Saved()
        self.main: tuple[dict[int, Row], Saved] | None = None
        self._wide = False
        super().__init__(columns, lines)
        self.buffer = _rows()

    @property
    def default_char(self) -> Char:
        """What an empty cell is; a reversed screen is a mode of the whole."""
        return _BLANK

    def reset(self) -> None:
        """Be as at first."""
        super().reset()
        self.buffer = _rows()
        self.designations = ("B", "B")
        self.saved = Saved()
        self.main = None
        self._wide = False

    def soft_reset(self) -> None:
        """Let modes, margins, attributes and character sets be as at first; what is shown stays."""
        self.mode = {WRAP, CURSOR_SHOWN}
        self.margins = None
        self.cursor.attrs = _BLANK
        self.designations = ("B", "B")
        self.charset = 0
        self.saved = Saved()

    # Text.

    def draw(self, data: str) -> None:
        """Write text at the cursor."""
        if self.designations[self.charset] == "0":
            data = data.translate(_GRAPHICS)
        for char in data:
            width = wcwidth(char)
            if char.isprintable():
                if width > 0:
                    self._put(char, width)
                elif width == 0:
                    self._combine(char)
            elif char.isspace():
                for _ in range(width):
                    self._put(" ", 1)
            elif width > 0:
                self._put("\ufffd", 1)

    def repeat(self, count: int) -> None:
        """Write the character before the cursor again."""
        x, line = self.cursor.x - 1, self.buffer[self.cursor.y]
        if x > 0 and not line[x].data:
            x -= 1
        if x >= 0:
            # What stands there is no letter for line drawing any more.
            char = line[x].data[0]
            for _ in range(min(count, self.columns)):
                self._put(char, wcwidth(char))

    def _put(self, char: str, width: int) -> None:
        cursor = self.cursor
        if cursor.x + width > self.columns:
            if width > self.columns:
                return
            if WRAP in self.mode:
                self.next_line()
            else:
                cursor.x = self.columns - width
        if INSERT in self.mode:
            self.insert_characters(width)
        x, line = cursor.x, self.buffer[cursor.y]
        line[x] = cursor.attrs._replace(data=char)
        if width == 2:
            self._wide = True
            line[x + 1] = cursor.attrs._replace(data="")
        if self._wide:
            self._mend(line, x)
            self._mend(line, x + width)
        cursor.x = x + width if WRAP in self.mode else min(x + width, self.columns - 1)

    def _combine(self, char: str) -> None:
        x, line = self.cursor.x - 1, self.buffer[self.cursor.y]
        if x > 0 and not line[x].data:
            x -= 1
        if x >= 0 and len(line[x].data) < _MAX_CELL:
            line[x] = line[x]._replace(data=line[x].data + char)

    def _mend(self, line: Row, x: int) -> None:
        """Blank what is only half of a wide character at the edge before a column."""
        left, right = line[x - 1] if x else _BLANK, line[x] if x < self.columns else _BLANK
        is_wide = bool(left.data) and wcwidth(left.data[0]) == 2
        if is_wide and right.data:
            line[x - 1] = left._replace(data=" ")
        elif not (is_wide or right.data):
            line[x] = right._replace(data=" ")

    # Lines.

    def index(self) -> None:
        """Go down one line, scrolling at the end of the region."""
        top, bottom = self._region
        if self.cursor.y == bottom:
            self._shift(top, bottom, 1)
        elif self.cursor.y < self.lines - 1:
            self.cursor.y += 1

    def next_line(self) -> None:
        """Go to the beginning of the next line."""
        self.cursor.x = 0
        self.index()

    def reverse_index(self) -> None:
        """Go up one line, scrolling at the beginning of the region."""
        top, bottom = self._region
        if self.cursor.y == top:
            self._shift(top, bottom, -1)
        elif self.cursor.y > 0:
            self.cursor.y -= 1

    def scroll(self, count: int) -> None:
        """Move the region's lines up, or down where the number is negative."""
        self._shift(*self._region, count)

    def insert_lines(self, count: int | None = None) -> None:
        """Insert lines at the cursor."""
        self._shift_here(-(count or 1))

    def delete_lines(self, count: int | None = None) -> None:
        """Delete lines from the cursor on."""
        self._shift_here(count or 1)

    def _shift_here(self, count: int) -> None:
        top, bottom = self._region
        if top <= self.cursor.y <= bottom:
            self._shift(self.cursor.y, bottom, count)
            self.cursor.x = 0

    @property
    def _region(self) -> Margins:
        return self.margins or Margins(0, self.lines - 1)

    def _shift(self, top: int, bottom: int, count: int) -> None:
        rows = [self.buffer[y] for y in range(top, bottom + 1)]
        blank = [self._blank_row() for _ in range(min(abs(count), len(rows)))]
        rows = rows[count:] + blank if count > 0 else blank + rows[:count]
        self.buffer.update(enumerate(rows, top))

    def _blank_row(self) -> Row:
        return StaticDefaultDict(self._blank)

    @property
    def _blank(self) -> Char:
        """What is left where something is erased: the background stays."""
        return Char(" ", bg=self.cursor.attrs.bg)

    # Parts of lines.

    @property
    def _column(self) -> int:
        """The cursor's column; behind the last one it waits to wrap."""
        return min(self.cursor.x, self.columns - 1)

    def insert_characters(self, count: int | None = None) -> None:
        """Insert blanks at the cursor."""
        x, line = self._column, self.buffer[self.cursor.y]
        count = min(count or 1, self.columns - x)
        for place in range(self.columns - 1, x + count - 1, -1):
            line[place] = line[place - count]
        self._erase(x, x + count)
        self._mend(line, self.columns)

    def delete_characters(self, count: int | None = None) -> None:
        """Delete characters from the cursor on."""
        x, line = self._column, self.buffer[self.cursor.y]
        count = min(count or 1, self.columns - x)
        for place in range(x, self.columns - count):
            line[place] = line[place + count]
        self._mend(line, x)
        self._erase(self.columns - count, self.columns)

    def erase_characters(self, count: int | None = None) -> None:
        """Erase characters from the cursor on."""
        x = self._column
        self._erase(x, min(x + (count or 1), self.columns))

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:
        """Erase to the end of the line (0), from its beginning (1), or all of it (2)."""
        x = self._column
        if how in (0, 1, 2):
            self._erase(x if how == 0 else 0, x + 1 if how == 1 else self.columns)

    def erase_in_display(self, how: int = 0, *_: Any, **__: Any) -> None:
        """Erase to the end of the screen (0), from its beginning (1), or all of it (2)."""
        if how in (0, 1):
            self.erase_in_line(how)
        lines = {0: range(self.cursor.y + 1, self.lines), 1: range(self.cursor.y), 2: range(self.lines)}
        for y in lines.get(how, ()):
            self.buffer[y] = self._blank_row()

    def alignment_display(self) -> None:
        """Fill the screen with the letter E."""
        for y in range(self.lines):
            self.buffer[y] = StaticDefaultDict(Char("E"))
        self.margins = None
        self.cursor.x = self.cursor.y = 0

    def _erase(self, start: int, end: int) -> None:
        self.cursor.x = self._column
        if (start, end) == (0, self.columns):
            self.buffer[self.cursor.y] = self._blank_row()
            return
        line, blank = self.buffer[self.cursor.y], self._blank
        for x in range(start, end):
            line[x] = blank
        self._mend(line, start)
        self._mend(line, end)

    # The cursor.

    def cursor_up(self, count: int | None = None) -> None:
        """Go up, not out of the region."""
        top = self._region.top
        self.cursor.y = max(self.cursor.y - (count or 1), top if self.cursor.y >= top else 0)

    def cursor_down(self, count: int | None = None) -> None:
        """Go down, not out of the region."""
        bottom = self._region.bottom
        last = bottom if self.cursor.y <= bottom else self.lines - 1
        self.cursor.y = min(self.cursor.y + (count or 1), last)

    def cursor_to_line(self, line: int | None = None) -> None:
        """Go to a line in the same column."""
        self.cursor_position(line, self._column + 1)

    def cursor_position(self, line: int | None = None, column: int | None = None) -> None:
        """Go to a line and column, from 1; in origin mode the region's first line is 1."""
        top = self._region.top if ORIGIN in self.mode else 0
        self.cursor.x, self.cursor.y = (column or 1) - 1, (line or 1) - 1 + top
        self.ensure_hbounds()
        self.ensure_vbounds()

    def set_margins(self, top: int | None = None, bottom: int | None = None) -> None:
        """Set the region that scrolls, lines from 1."""
        first, last = (top or 1) - 1, min(bottom or self.lines, self.lines) - 1
        if first < last:
            whole = (first, last) == (0, self.lines - 1)
            self.margins = None if whole else Margins(first, last)
            self.cursor_position()

    def tab(self) -> None:
        """Go to the next tab stop."""
        self.move_tabs(1)

    def move_tabs(self, count: int) -> None:
        """Go so many tab stops on, or back where the number is negative."""
        x = self._column
        if count > 0:
            stops = sorted(stop for stop in self.tabstops if stop > x)
            x = stops[count - 1] if len(stops) >= count else self.columns - 1
        else:
            stops = sorted((stop for stop in self.tabstops if stop < x), reverse=True)
            x = stops[-count - 1] if len(stops) >= -count else 0
        self.cursor.x = min(x, self.columns - 1)

    def set_tab_stop(self) -> None:
        """Set a tab stop at the cursor."""
        self.tabstops.add(self._column)

    def save_cursor(self) -> None:
        """Put the cursor away."""
        cursor = self.cursor
        self.saved = Saved(self._column, cursor.y, cursor.attrs, self.designations, self.charset)

    def restore_cursor(self) -> None:
        """Take the cursor that was put away; it stays there."""
        saved = self.saved
        self.cursor = Cursor(saved.x, saved.y, saved.attrs)
        self.designations, self.charset = saved.designations, saved.charset
        self.ensure_hbounds()
        self.ensure_vbounds()

    def select_graphic_rendition(self, *attrs: int, private: bool = False) -> None:
        """Change how the cursor writes."""
        # pyte takes any number for a part of a colour.
        super().select_graphic_rendition(*(min(each, 255) for each in attrs))

    # What changes the whole.

    def define_charset(self, code: str, mode: str) -> None:
        """Make G0, ``(``, or G1, ``)``, a character set."""
        code = "0" if code == "0" else "B"
        self.designations = (code, self.designations[1]) if mode == "(" else (self.designations[0], code)

    def switch_mode(self, mode: int, on: bool) -> None:
        """Switch a mode on or off.

        Args:
            mode: Its number; a private one's is shifted, see PRIVATE.
            on: Whether it shall be on.
        """
        if mode >> PRIVATE in (47, 1047, 1049):
            self._switch_screen(on, mode >> PRIVATE == 1049)
        elif mode >> PRIVATE == 1048:
            self.save_cursor() if on else self.restore_cursor()
        elif mode in MODES:
            (self.mode.add if on else self.mode.discard)(mode)
            if mode == ORIGIN:
                self.cursor_position()
            elif mode == WRAP and not on:
                self.cursor.x = self._column

    def _switch_screen(self, alternate: bool, with_cursor: bool) -> None:
        if alternate and self.main is None:
            if with_cursor:
                self.save_cursor()
            self.main = self.buffer, self.saved
            self.buffer, self.saved = _rows(), Saved()
        elif not alternate and self.main is not None:
            self.buffer, self.saved = self.main
            self.main = None
            if with_cursor:
                self.restore_cursor()

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Change the size; the line with the cursor stays."""
        lines, columns = lines or self.lines, columns or self.columns
        if over := max(0, self.cursor.y - lines + 1):
            self._shift(0, self.lines - 1, over)
            self.cursor.y -= over
        self.tabstops.update(range(-(-self.columns // 8) * 8, columns, 8))
        self.tabstops = {stop for stop in self.tabstops if stop < columns}
        self.lines, self.columns = lines, columns
        for rows in (self.buffer, self.main[0] if self.main else {}):
            for y in [y for y in rows if y >= lines]:
                del rows[y]
            for line in rows.values():
                for x in [x for x in line if x >= columns]:
                    del line[x]
                self._mend(line, columns)
        self.margins = None
        self.ensure_hbounds()
        self.ensure_vbounds()


def _rows() -> dict[int, Row]:
    return defaultdict(lambda: StaticDefaultDict(_BLANK))
