"""Cells as bytes for a terminal: nothing but cursor moves, renditions and printable text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyte import graphics
from pyte.screens import Char

BLANK = Char(" ")
_TEXT_CODES = (
    ("bold", 1),
    ("italics", 3),
    ("underscore", 4),
    ("blink", 5),
    ("reverse", 7),
    ("strikethrough", 9),
)
_FOREGROUND = {name: code for code, name in {**graphics.FG_ANSI, **graphics.FG_AIXTERM}.items()}
_BACKGROUND = {name: code for code, name in {**graphics.BG_ANSI, **graphics.BG_AIXTERM}.items()}
# Of two numbers for one colour the lower one, of the palette that people choose.
_PALETTE = {colour: number for number, colour in reversed([*enumerate(graphics.FG_BG_256)])}


def move(line: int, column: int) -> str:
    """Return what moves the cursor, from 0."""
    return f"\x1b[{line + 1};{column + 1}H"


def rendition(attrs: Char) -> str:
    """Return what makes a terminal write like this cell."""
    codes = ["0", *(str(code) for name, code in _TEXT_CODES if getattr(attrs, name))]
    if attrs.fg != "default":
        codes.append(_colour(attrs.fg, _FOREGROUND, "38"))
    if attrs.bg != "default":
        codes.append(_colour(attrs.bg, _BACKGROUND, "48"))
    return f"\x1b[{';'.join(codes)}m"


def cells(row: Iterable[Char]) -> str:
    """Return what writes cells from the cursor on, whatever the rendition was before."""
    parts, before = [], None
    for cell in row:
        attrs = cell._replace(data="")
        if attrs != before:
            parts.append(rendition(attrs))
            before = attrs
        parts.append(cell.data)
    return "".join(parts)


def trimmed(row: Sequence[Char], least: int = 0) -> Sequence[Char]:
    """Return a row without the blanks at its end, but for the first cells of it."""
    length = len(row)
    while length > least and row[length - 1] == BLANK:
        length -= 1
    return row[:length]


def _colour(name: str, names: dict[str, int], introducer: str) -> str:
    if name in names:
        return str(names[name])
    if name in _PALETTE:
        return f"{introducer};5;{_PALETTE[name]}"
    red, green, blue = (int(name[at : at + 2], 16) for at in (0, 2, 4))
    return f"{introducer};2;{red};{green};{blue}"
