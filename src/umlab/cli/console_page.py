"""What guests answered, for people and for programs; what a guest said is escaped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
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
from umlab.guest.console import escape
from umlab.mconsole.fleet import Console, Outcome

#: Pieces of text, each with what it is: ``ok``, ``error``, ``name`` or nothing.
Spans = list[tuple[str, str]]

_STYLES = {"ok": "green", "error": "bold red", "name": "bold", "": ""}
#: Columns that the names of a table's row may take, and blanks between columns.
_MAX_NAMES = 40
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
    return escape(text.encode("utf-8", "backslashreplace"))


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
    group = _group([outcome])
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
    same: dict[tuple[bool, str], list[Outcome]] = {}
    for outcome in outcomes:
        same.setdefault((outcome.error is None, _text(outcome)), []).append(outcome)
    groups = [_group(each) for each in same.values()]
    if all(len(each.lines) < 2 and len(each.names) <= _MAX_NAMES for each in groups):
        return _table(groups)
    if width is not None and sum(map(_width, groups)) + _GAP * (len(groups) - 1) <= width:
        return _columns(groups)
    return _blocks(groups)


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


def _group(outcomes: Sequence[Outcome]) -> _Group:
    names = ", ".join(shown_name(outcome.umid) for outcome in outcomes)
    text = shown(_text(outcomes[0])).expandtabs().strip("\n")
    return _Group(names, outcomes[0].error is None, text.split("\n") if text else [])


def _table(groups: Iterable[_Group]) -> Spans:
    groups = list(groups)
    width = max(len(group.names) for group in groups)
    spans: Spans = []
    for group in groups:
        style, word = group.mark
        spans += [("name", f"{group.names:{width}}"), ("", " " * _GAP), (style, word)]
        spans.append(("", f"{' ' * (5 - len(word))}{group.lines[0]}\n" if group.lines else "\n"))
    return spans


def _head(group: _Group) -> Spans:
    return [("name", group.names), ("", ": "), group.mark]


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


def _blocks(groups: Iterable[_Group]) -> Spans:
    spans: Spans = []
    for group in groups:
        if spans:
            spans.append(("", "\n"))
        spans += [*_head(group), ("", "\n"), *(("", f"{line}\n") for line in group.lines)]
    return spans
