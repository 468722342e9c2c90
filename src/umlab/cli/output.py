"""Where a command prints: lines for people or one JSON object per line, never both."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any


class Output:
    """The standard output of a command.

    Args:
        as_json: Print records for programs instead of lines for people.
        write: Takes each record's line; standard output unless given, waiting for its reader.
    """

    def __init__(self, *, as_json: bool, write: Callable[[str], None] | None = None) -> None:
        self.as_json = as_json
        self._write = write or (lambda line: print(line, flush=True))

    def record(self, record: dict[str, Any], text: str) -> None:
        """Print one fact: ``record`` as a line of JSON, or ``text``; flushed at once."""
        self._write(json.dumps(record) if self.as_json else text)

    def progress(self, text: str, end: str = "\n") -> None:
        """Print what only people need, and ``end`` behind it; with JSON it goes to standard error."""
        print(text, end=end, file=sys.stderr if self.as_json else sys.stdout, flush=True)


def print_error(error: Exception) -> None:
    """Print an error of ours as one line on standard error."""
    from umlab.guest.console import escape

    # A guest may have had a word in it.
    print(f"umlab: {escape(os.fsencode(str(error)))}", file=sys.stderr)


def event_text(kind: str, facts: dict[str, Any]) -> str:
    """Return an event as a line for people, fit for a terminal: some facts are words of a guest."""
    from umlab.guest.console import escape_text

    words = ", ".join(f"{key} {_fact_text(value)}" for key, value in facts.items() if value != "")
    # One line, whatever a guest would have people believe of the next one.
    return escape_text(f"{kind.replace('_', ' ')}: {words}").replace("\n", "\\n")


def _fact_text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key} {_fact_text(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return "/".join(map(_fact_text, value)) or "-"
    return "-" if value is None else str(value)
