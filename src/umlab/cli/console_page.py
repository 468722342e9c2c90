"""What guests answered, for people and for programs; what a guest said is escaped."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any

from umlab.cli.output import Output
from umlab.client.console import GuestConsole
from umlab.errors import (
    MconsoleError,
    MconsoleProtocolError,
    MconsoleTimeout,
    MconsoleUnreachable,
    UmlabError,
)
from umlab.guest.console import escape_text
from umlab.mconsole.fleet import Console, Outcome

#: Pieces of text, each with what it is: ``ok``, ``error``, ``name`` or nothing.
Spans = list[tuple[str, str]]

_STYLES = {"ok": "green", "error": "bold red", "name": "bold", "": ""}
#: Columns that the names of a table's row may take, and blanks between columns.
_MAX_NAMES = 40
#: Guests in a row whose names are shortened to the first and the last where there is no room for all.
_MIN_RUN = 3
_GAP = 2
#: Characters that are shown of an answer whose end has not come.
_MAX_SAID = 400


@dataclass(frozen=True, slots=True)
class _Group:
    """Guests that answered the same."""

    names: str
    ok: bool
    lines: list[str]

    @property
    def mark(self) -> tuple[str, str]:
        return ("ok", "OK") if self.ok else ("error", "ERR")


def shown(text: str) -> str:
    """Return a guest's text fit for a terminal."""
    return escape_text(text)


def shown_name(text: str) -> str:
    """Return a name that anybody may have chosen fit for a line of a terminal."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def reason(error: UmlabError) -> str:
    """Return what is wrong, where the guest and the command are known already; untrusted."""
    if isinstance(error, MconsoleTimeout):
        said = error.output
        if len(said) > _MAX_SAID:
            said = f"... {said[-_MAX_SAID:]}"
        return f"did not answer in time, it may be hung or stopped{f'; it said: {said}' if said else ''}"
    if isinstance(error, MconsoleUnreachable):
        return error.output
    if isinstance(error, MconsoleProtocolError):
        return f"the answer makes no sense: {error.reason}"
    if isinstance(error, MconsoleError):
        return error.output or "failed without a reason"
    return str(error)


def record(guest: Console, outcome: Outcome) -> dict[str, Any]:
    """Return an answer for programs; its text is not escaped.

    Args:
        guest: Who was asked.
        outcome: What came.
    """
    error = outcome.error
    output = outcome.output
    if isinstance(error, MconsoleError) and not isinstance(error, MconsoleUnreachable):
        output = error.output
    known = guest if isinstance(guest, GuestConsole) else None
    return {
        "guest": known.name if known else outcome.umid,
        "lab": known.lab if known else None,
        "ok": error is None,
        "output": output or "",
        "error": None if error is None else reason(error),
        "seconds": round(outcome.seconds, 6),
    }


def answer(outcome: Outcome) -> Spans:
    """Return one guest's answer behind OK or ERR."""
    group = _group([outcome], [0])
    text = "\n".join(group.lines)
    if not text:
        return [group.mark, ("", "\n")]
    return [group.mark, ("", "\n" if len(group.lines) > 1 else " "), ("", f"{text}\n")]


def answers(outcomes: Sequence[Outcome], width: int | None) -> Spans:
    """Return several guests' answers, side by side where they fit; who answered the same stands together.

    Args:
        outcomes: What came, at least one.
        width: Columns of the terminal, ``None`` where there is none.
    """
    same: dict[tuple[bool, str], list[int]] = {}
    for at, outcome in enumerate(outcomes):
        same.setdefault((outcome.error is None, _text(outcome)), []).append(at)
    groups = [_group(outcomes, places) for places in same.values()]
    if all(len(each.lines) < 2 and len(each.names) <= _MAX_NAMES for each in groups):
        return _table(groups)
    if width is not None and sum(map(_width, groups)) + _GAP * (len(groups) - 1) <= width:
        return _columns(groups)
    return _blocks(groups, width)


def write(spans: Spans, output: Output) -> None:
    """Print for people, in colours where standard output is a terminal and ``NO_COLOR`` is not set."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        output.progress("".join(text for _, text in spans), end="")
        return
    from rich.console import Console
    from rich.text import Text

    line = Text.assemble(*((text, _STYLES[style]) for style, text in spans))
    Console(highlight=False).print(line, end="", soft_wrap=True)


def complain(text: str) -> None:
    """Print what is wrong to standard error, as every command does."""
    print(f"umlab: {shown(text)}", file=sys.stderr, flush=True)


def _text(outcome: Outcome) -> str:
    return (outcome.output or "") if outcome.error is None else reason(outcome.error)


def _group(outcomes: Sequence[Outcome], places: Sequence[int]) -> _Group:
    """Return those guests of all that answered the same, and what."""
    first = outcomes[places[0]]
    text = shown(_text(first)).expandtabs().strip("\n")
    names = _names([shown_name(outcome.umid) for outcome in outcomes], places)
    return _Group(names, first.error is None, text.split("\n") if text else [])


def _names(everybody: Sequence[str], places: Sequence[int]) -> str:
    whole = ", ".join(everybody[place] for place in places)
    if len(whole) <= _MAX_NAMES:
        return whole
    parts: list[str] = []
    # Those that follow one another are as far from their places as one another.
    for _, run in groupby(enumerate(places), key=lambda each: each[1] - each[0]):
        names = [everybody[place] for _, place in run]
        parts += [f"{names[0]} … {names[-1]}"] if len(names) >= _MIN_RUN else names
    return f"{', '.join(parts)} ({len(places)} guests)" if len(places) > 1 else whole


def _table(groups: Iterable[_Group]) -> Spans:
    groups = list(groups)
    width = max(len(group.names) for group in groups)
    spans: Spans = []
    for group in groups:
        style, word = group.mark
        spans += [("name", f"{group.names:{width}}"), ("", " " * _GAP), (style, word)]
        spans.append(("", f"{' ' * (5 - len(word))}{group.lines[0]}\n" if group.lines else "\n"))
    return spans


def _head(group: _Group, width: int | None = None) -> Spans:
    names = group.names if width is None else "\n".join(textwrap.wrap(group.names, max(width, _MAX_NAMES)))
    return [("name", names), ("", ": "), group.mark]


def _width(group: _Group) -> int:
    return max(sum(len(text) for _, text in _head(group)), *map(len, group.lines), 0)


def _columns(groups: Sequence[_Group]) -> Spans:
    spans: Spans = []
    rows = zip_longest(*([_head(group), *([("", line)] for line in group.lines)] for group in groups))
    for row in rows:
        blank = 0
        for cell, group in zip(row, groups, strict=True):
            texts = cell or []
            if texts:
                spans += [("", " " * blank), *texts]
                blank = 0
            blank += _width(group) - sum(len(text) for _, text in texts) + _GAP
        spans.append(("", "\n"))
    return spans


def _blocks(groups: Iterable[_Group], width: int | None) -> Spans:
    spans: Spans = []
    for group in groups:
        if spans:
            spans.append(("", "\n"))
        spans += [*_head(group, width), ("", "\n"), *(("", f"{line}\n") for line in group.lines)]
    return spans
