"""What stands behind a command on a ``vde_switch`` console, and why the command fails."""

from __future__ import annotations

import errno
import re

_MAX_DIGITS = 9
_NUMBER = re.compile(r"[+-]?([0-9]+)")


class CommandError(Exception):
    """A command fails with an error number."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def read_number(text: str) -> int:
    """Return the number that a text begins with, 0 where it begins with none: as atoi(3) does.

    Raises:
        CommandError: It has more than nine digits.
    """
    match = _NUMBER.match(text)
    if match is None:
        return 0
    if len(match[1]) > _MAX_DIGITS:
        raise CommandError(errno.EINVAL)
    return int(match[0])


def two_words(argument: str) -> tuple[str, str]:
    """Return the first two words.

    Raises:
        CommandError: There are fewer.
    """
    words = argument.split()
    if len(words) < 2:
        raise CommandError(errno.EINVAL)
    return words[0], words[1]


def two_numbers(argument: str) -> tuple[int, int]:
    """Return the numbers that the first two words are; the second may have something behind it.

    Raises:
        CommandError: They are none, or have more than nine digits.
    """
    first, second = two_words(argument)
    if not _NUMBER.fullmatch(first) or not _NUMBER.match(second):
        raise CommandError(errno.EINVAL)
    return read_number(first), read_number(second)
