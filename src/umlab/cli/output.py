"""Where a command prints: lines for people or one JSON object per line, never both."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any


class Output:
    """The standard output of a command.

    Args:
        as_json: Print records for programs instead of lines for people.
        write: Takes each record's line; standard output unless given, waiting for its reader.
    """

    def __init__(self, *, as_json: bool, write: Callable[[str], None] | None = None) -> None:
        self.as_json = as_json
        self._write = write or partial(print, flush=True)

    def record(self, record: dict[str, Any], text: str) -> None:
        """Print one fact: ``record`` as a line of JSON, or ``text``; flushed at once."""
        self._write(json.dumps(record) if self.as_json else text)

    def progress(self, text: str, end: str = "\n") -> None:
        """Print what only people need, and ``end`` behind it; with JSON it goes to standard error."""
        print(text, end=end, file=sys.stderr if self.as_json else sys.stdout, flush=True)
