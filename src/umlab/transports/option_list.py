"""Places that are written as a list of options, as UML's vector drivers write theirs: ``KEY=VALUE,...``."""

from __future__ import annotations

import re

from umlab.errors import TransportError

_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|0|[1-9][0-9]*")


class OptionList:
    """The options of one place, each of which is to be taken once.

    Args:
        kind: The transport, for the errors.
        place: The text.
        known: The options that there are.

    Raises:
        TransportError: A part is no option, one is not known, or is there twice.
    """

    def __init__(self, kind: str, place: str, known: tuple[str, ...]) -> None:
        self._kind = kind
        self._values: dict[str, str] = {}
        for part in place.split(","):
            name, equals, value = part.partition("=")
            if not (equals and value):
                raise self.error(f"{part!r} is not of the form KEY=VALUE")
            if name not in known:
                raise self.error(f"{name!r} is no option; there are {', '.join(known)}")
            if name in self._values:
                raise self.error(f"{name} is there twice")
            self._values[name] = value

    def error(self, reason: str) -> TransportError:
        """Return an error that names the transport."""
        return TransportError(f"{self._kind}: {reason}")

    def text(self, name: str) -> str:
        """Return an option's value.

        Raises:
            TransportError: It is not there.
        """
        if name not in self._values:
            raise self.error(f"{name}= is missing")
        return self._values[name]

    def has(self, name: str) -> bool:
        """Tell whether an option is there."""
        return name in self._values

    def number(self, name: str, bits: int) -> int:
        """Return a number, which is decimal, or hexadecimal behind ``0x``.

        Raises:
            TransportError: It is not there, or no number of so many bits.
        """
        text = self.text(name)
        if not _NUMBER.fullmatch(text) or int(text, 0) >> bits:
            raise self.error(f"{name}={text} is no number of {bits} bits")
        return int(text, 0)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return what a ``1`` or a ``0`` says.

        Raises:
            TransportError: It is something else.
        """
        if name not in self._values:
            return default
        if self._values[name] not in ("0", "1"):
            raise self.error(f"{name}={self._values[name]} is neither 0 nor 1")
        return self._values[name] == "1"

    def pair(self, first: str, second: str, bits: int) -> tuple[int, int] | None:
        """Return two numbers that go together, ``None`` where neither is there.

        Raises:
            TransportError: One of them is missing, or no number of so many bits.
        """
        if not (self.has(first) or self.has(second)):
            return None
        return self.number(first, bits), self.number(second, bits)
