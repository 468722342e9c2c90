"""``key=value`` words: what a running switch can be told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

_UNITS_NS = {
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "min": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?)([a-z]+)")
_SIZE_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,12})([KMG])")
_SWITCHED = {"on": True, "off": False}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    Attributes:
        field: Of `umlab.client.call.ConfigChange`.
        parse: Makes its value of a text; raises ValueError, whose text says what is right.
        examples: Texts, for completion.
        format: Makes a text of its value.
    """

    field: str
    parse: Callable[[str], Any]
    examples: tuple[str, ...]
    format: Callable[[Any], str] = str


def parse_time(text: str) -> int:
    """Return nanoseconds.

    Args:
        text: A number and its unit, such as ``100s``.

    Raises:
        ValueError: It is none.
    """
    match = _TIME.fullmatch(text)
    if match is None or match[2] not in _UNITS_NS:
        raise ValueError("write a number and its unit, one of ms, s, min, h, such as 100s")
    nanoseconds = round(float(match[1]) * _UNITS_NS[match[2]])
    if not 0 < nanoseconds < 1 << 63:
        raise ValueError("write a time between 1ms and some centuries")
    return nanoseconds


def parse_size(text: str) -> int:
    """Return bytes.

    Args:
        text: A number and its unit, such as ``100M``, 1024 of which are the next one.

    Raises:
        ValueError: It is none.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError("write a number and its unit, one of K, M, G, such as 100M")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def format_time(nanoseconds: int) -> str:
    """Return nanoseconds in the form that `parse_time` takes, in seconds."""
    return f"{nanoseconds / _UNITS_NS['s']:.12g}s"


def _parse_switched(text: str) -> bool:
    if text not in _SWITCHED:
        raise ValueError("write on or off")
    return _SWITCHED[text]


def format_size(size: int) -> str:
    """Return bytes in the form that `parse_size` takes, those that make no whole unit as they are."""
    for unit, whole in reversed(_SIZE_UNITS.items()):
        if size and not size % whole:
            return f"{size // whole}{unit}"
    return str(size)


def format_switched(value: bool) -> str:
    """Return ``on`` or ``off``."""
    return "on" if value else "off"


def _parse_count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError("write a whole number")
    return int(text)


SETTINGS = {
    "hub": Setting("hub", _parse_switched, ("on", "off"), format_switched),
    "ageing_time": Setting("ageing_time_ns", parse_time, ("300s",), format_time),
    "max_frame": Setting("max_frame", _parse_count, ("1518", "9018")),
    "fdb_capacity": Setting("fdb_capacity", _parse_count, ()),
    "egress_queue_depth": Setting("egress_queue_depth", _parse_count, ()),
    "lldp": Setting("lldp", _parse_switched, ("on", "off"), format_switched),
}


def parse_settings(words: list[str]) -> dict[str, Any]:
    """Return the changed fields of a switch's configuration.

    Raises:
        typer.BadParameter: A word is no setting; the text says what would be.
    """
    changes: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if key not in SETTINGS or not sign:
            raise typer.BadParameter(f"{word}: write KEY=VALUE; keys are {', '.join(SETTINGS)}")
        setting = SETTINGS[key]
        if setting.field in changes:
            raise typer.BadParameter(f"{key} is given twice")
        try:
            changes[setting.field] = setting.parse(text)
        except ValueError as error:
            raise typer.BadParameter(f"{word}: {error}") from None
    return changes
