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


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below their headings.

    Attributes:
        headings: One for each column; one with a blank in front stands over numbers.
        rows: Texts, fit for a terminal.
    """

    headings: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


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

    On a terminal tables are cut to its width, and a new page takes the place of the one before.
    """
    output = Output(as_json=as_json)
    terminal = not as_json and sys.stdout.isatty()
    if watch is None:
        page = build()
        if terminal:
            _print_rich(page)
        else:
            _print_plain(page, output)
    elif terminal:
        _redraw(build, watch)
    else:
        while True:
            _print_plain(build(), output)
            time.sleep(watch)


def _print_plain(page: Page, output: Output) -> None:
    if output.as_json:
        for record in page.records:
            output.record(record, "")
        return
    for part in page.parts:
        output.record({}, part if isinstance(part, str) else plain_table(part))


def plain_table(table: Table) -> str:
    """Return a table as aligned text that is as wide as it needs to be."""
    lines = [table.headings, *table.rows]
    widths = [max(len(line[column].strip()) for line in lines) for column in range(len(table.headings))]
    numbers = [heading.startswith(" ") for heading in table.headings]
    texts = []
    for line in lines:
        cells = [
            cell.strip().rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(line, widths, numbers, strict=True)
        ]
        texts.append("  ".join(cells).rstrip())
    return "\n".join(texts)


def _print_rich(page: Page) -> None:
    from rich.console import Console

    Console(highlight=False).print(_rendered(page))


def _redraw(build: Callable[[], Page], watch: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(_rendered(build()), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            time.sleep(watch)
            live.update(_rendered(build()), refresh=True)


def _rendered(page: Page) -> RenderableType:
    from rich.console import Group
    from rich.table import Table as RichTable
    from rich.text import Text

    parts: list[RenderableType] = []
    for part in page.parts:
        if isinstance(part, str):
            parts.append(Text(part))
            continue
        table = RichTable(box=None, pad_edge=False, header_style="bold")
        for heading in part.headings:
            number = heading.startswith(" ")
            table.add_column(
                heading.strip(), justify="right" if number else "left", no_wrap=True, overflow="ellipsis"
            )
        for row in part.rows:
            # A Text has no markup: names are shown as they are.
            table.add_row(*(Text(cell.strip()) for cell in row))
        parts.append(table)
    return Group(*parts)
