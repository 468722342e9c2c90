"""What a command shows, for programs, terminals and everything else, once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from umlab.cli.output import Output

if TYPE_CHECKING:
    from rich.console import RenderableType


#: Between two columns.
_GAP = "  "


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below their headings.

    Attributes:
        headings: One for each column; one with a blank in front stands over numbers.
        rows: Texts, fit for a terminal.
        spare: Headings of columns that a narrow terminal does without, the first one soonest.
    """

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    spare: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """One state of what is shown.

    Attributes:
        records: For programs.
        parts: For people: lines and tables, fit for a terminal.
    """

    records: Sequence[dict[str, Any]]
    parts: Sequence[str | Table] = field(default_factory=list)


def present(build: Callable[[], Page], *, as_json: bool, watch: float | None = None) -> None:
    """Show a page, and with ``watch`` a new one every so many seconds until interrupted.

    On a terminal tables are fitted to its width, and a new page takes the place of the one before.
    """
    output = Output(as_json=as_json)
    terminal = not as_json and sys.stdout.isatty()
    if watch is None:
        page = build()
        if terminal:
            _print_rich(page)
        else:
            print_plain(page, output)
    elif terminal:
        _redraw(build, watch)
    else:
        while True:
            print_plain(build(), output)
            time.sleep(watch)


def print_plain(page: Page, output: Output) -> None:
    """Print a page whole, as records or as plain text."""
    if output.as_json:
        for record in page.records:
            output.record(record, "")
        return
    for part in page.parts:
        output.record({}, part if isinstance(part, str) else plain_table(part))


def plain_table(table: Table) -> str:
    """Return a table as aligned text that is as wide as it needs to be."""
    lines = [table.headings, *table.rows]
    widths = _widths(table)
    numbers = [heading.startswith(" ") for heading in table.headings]
    texts = []
    for line in lines:
        cells = [
            cell.strip().rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ]
        texts.append(_GAP.join(cells).rstrip())
    return "\n".join(texts)


def span(seconds: float) -> str:
    """Return a span in the largest unit of which it has two."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def size_text(size: int) -> str:
    """Return a number of bytes as people read it."""
    value, unit = float(size), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"


def date_text(at: float) -> str:
    """Return an instant, seconds since 1970, as this place's date and time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def fitted(table: Table, width: int) -> Table:
    """Return a table without those of its spare columns that a width has no room for."""
    for heading in table.spare:
        widths = _widths(table)
        if sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
            break
        lost = table.headings.index(heading)
        headings, *rows = [(*row[:lost], *row[lost + 1 :]) for row in (table.headings, *table.rows)]
        table = Table(headings, rows)
    return table


def _widths(table: Table) -> list[int]:
    return [
        max(len(cell.strip()) for cell in column) for column in zip(table.headings, *table.rows, strict=True)
    ]


def _print_rich(page: Page) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    console.print(rendered(page.parts, console.width))


def _redraw(build: Callable[[], Page], watch: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    page = rendered(build().parts, console.width)
    with Live(page, console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            time.sleep(watch)
            live.update(rendered(build().parts, console.width), refresh=True)


def rendered(page: Sequence[str | Table], width: int) -> RenderableType:
    """Return the parts of a page for a terminal of a width."""
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[RenderableType] = []
    for part in page:
        if isinstance(part, str):
            parts.append(Text(part))
            continue
        shown = fitted(part, width)
        table = RichTable(box=None, pad_edge=False, padding=(0, len(_GAP), 0, 0), header_style="bold")
        for heading in shown.headings:
            number = heading.startswith(" ")
            # Folded, not cut: an argument is to be copied whole.
            table.add_column(heading.strip(), justify="right" if number else "left", overflow="fold")
        for row in shown.rows:
            # A Text has no markup: names are shown as they are.
            table.add_row(*(Text(cell.strip()) for cell in row))
        parts.append(table)
    return Group(*parts)
