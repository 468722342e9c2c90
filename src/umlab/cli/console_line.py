"""A line of the console's shell, taken apart: for whom it is, and what it says.

::

    proc loadavg            for the present guest
    @all version            for every guest
    @web*,db proc loadavg   for those whose names match
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

#: Stands in front of the names of several guests.
MARK = "@"
ALL = "all"


@dataclass(frozen=True, slots=True)
class Line:
    """A line.

    Attributes:
        patterns: Names and patterns of guests, ``None`` for the present one.
        text: What is said, as it was typed, without blanks around it.
    """

    patterns: tuple[str, ...] | None
    text: str

    @property
    def verb(self) -> str:
        """The first word, or nothing."""
        return _head(self.text)[0]

    @property
    def rest(self) -> str:
        """What follows the first word."""
        return _head(self.text)[1]


def parse_line(text: str) -> Line:
    """Take a line apart; any text is one."""
    text = text.strip()
    if not text.startswith(MARK):
        return Line(None, text)
    selector, rest = _head(text)
    patterns = (word.strip() for word in selector.removeprefix(MARK).split(","))
    return Line(tuple(word for word in patterns if word), rest)


def _head(text: str) -> tuple[str, str]:
    words = text.split(None, 1)
    return words[0] if words else "", words[1] if len(words) > 1 else ""


def select(patterns: Iterable[str], guests: Mapping[str, Iterable[str]]) -> tuple[list[str], list[str]]:
    """Return the guests that a line is for, in their order, and the patterns that no guest matches.

    Args:
        patterns: ``all``, or names in which ``*``, ``?`` and ``[...]`` match.
        guests: For each guest the names that it goes by.
    """
    found = {
        pattern: {
            guest
            for guest, names in guests.items()
            if pattern == ALL or any(fnmatchcase(name, pattern) for name in names)
        }
        for pattern in patterns
    }
    chosen = set().union(*found.values())
    return [guest for guest in guests if guest in chosen], [each for each in found if not found[each]]
