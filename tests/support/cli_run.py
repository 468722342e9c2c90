"""How a command ended that was run in the process of the tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Its lines as JSON objects."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def complaint(self) -> str:
        """What it printed to standard error, in one line and without the box around it."""
        return " ".join(self.err.replace("│", "").split())


#: Runs ``umlab`` with some words.
Run = Callable[..., Done]
