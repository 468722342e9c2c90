"""Text to values: what a key's text must look like, with the unit that it must have.

Each reader takes what a document has at a key (text, ``None``, a list or a mapping) and raises
ValueError with a reason for people.
"""

from __future__ import annotations

import re
from typing import Any

from umlab.lab.document import SHOWN

_WHOLE = re.compile(r"[0-9]{1,9}")
_QUANTITY = re.compile(r"([0-9]{1,12}) ?([A-Za-z]*)")
_SIZES = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_TIMES_NS = {"ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000, "h": 3_600_000_000_000}
_TRUTHS = {"true": True, "false": False}


def read_text(value: Any) -> str:
    """Return a text that is not empty."""
    if isinstance(value, str) and value:
        return value
    if isinstance(value, list | dict):
        raise ValueError("must be a single value")
    raise ValueError("has no value")


def read_truth(value: Any) -> bool:
    """Return what ``true`` or ``false`` says."""
    text = read_text(value)
    if text not in _TRUTHS:
        raise ValueError(f"{text[:SHOWN]!r} is neither true nor false")
    return _TRUTHS[text]


def read_count(value: Any) -> int:
    """Return a whole number of at most nine digits."""
    text = read_text(value)
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text[:SHOWN]!r} is not a whole number")
    return int(text)


def read_size(value: Any) -> int:
    """Return the bytes of a size such as ``128M``."""
    return _quantity(value, _SIZES, "128M")


def read_time(value: Any) -> int:
    """Return the nanoseconds of a time such as ``300s``."""
    return _quantity(value, _TIMES_NS, "300s")


def _quantity(value: Any, units: dict[str, int], example: str) -> int:
    text = read_text(value)
    match = _QUANTITY.fullmatch(text)
    if match is None or match[2] not in units:
        raise ValueError(f"{text[:SHOWN]!r} is not a number with a unit ({', '.join(units)}) like {example}")
    return int(match[1]) * units[match[2]]
