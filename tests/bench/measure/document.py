"""The page of the documents that holds the figures, made of the raw ones beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .machine import ROOT
from .report import read, tables

PAGE = ROOT / "docs/reference/benchmarks.md"
#: The raw figures, one file for each benchmark.
RAW = ROOT / "docs/reference/benchmarks"

_HEAD = """# Benchmarks

Made by `make bench` and `python tests/bench/publish.py` from the raw figures in [benchmarks](benchmarks/),
which hold every single round.

Contenders take turns, round by round. A cell is the median of the rounds (the least and the greatest) and, in
bold, how many times the first line's figure that is: the median of the rounds' ratios (the least and the
greatest of them). A round whose first line is more than 30 % off its median is repeated, and counted as
disturbed."""


def document(raw: Path = RAW) -> str:
    """Return the page's text."""
    return "\n".join(_lines(raw)) + "\n"


def write_document() -> None:
    """Write the page."""
    PAGE.write_text(document())


def _lines(raw: Path) -> Iterator[str]:
    yield _HEAD
    for path in sorted(raw.glob("*.json")):
        yield f"\n## {path.stem}\n"
        yield from tables(read(path))
