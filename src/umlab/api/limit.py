"""How many of a kind there may be at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from umlab.errors import LimitReached


class Limit:
    """A number of places, each taken by one.

    Args:
        what: What takes them, in the plural, for the error's text.
        most: How many there are.

    Attributes:
        taken: How many are taken now.
    """

    def __init__(self, what: str, most: int) -> None:
        self._what = what
        self._most = most
        self.taken = 0

    def check(self) -> None:
        """Raise LimitReached unless a place is free."""
        if self.taken >= self._most:
            raise LimitReached(f"the daemon has {self._most} {self._what} already")

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Take a place while the context lasts.  Raises LimitReached."""
        self.check()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
