"""Where a command prints: lines for people or one JSON object per line, never both."""

from __future__ import annotations

import json
import sys
from typing import Any


class Output:
    """The standard output of a command.

    Args:
        as_json: Print records for programs instead of lines for people.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def record(self, record: dict[str, Any], text: str) -> None:
        """Print one fact: ``record`` as a line of JSON, or ``text``; flushed at once."""
        print(json.dumps(record) if self.as_json else text, flush=True)

    def progress(self, text: str, end: str = "\n") -> None:
        """Print what only people need, and ``end`` behind it; with JSON it goes to standard error."""
        print(text, end=end, file=sys.stderr if self.as_json else sys.stdout, flush=True)
