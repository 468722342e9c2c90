"""Raw figures as JSON, and the tables that are made of them.

One benchmark writes one file: ``machine`` (fact by name) and ``comparisons``, each a ``Comparison`` with
every single round.  Tables are made of such a file only, so no figure in them is typed by hand.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .machine import ROOT
from .rounds import Comparison, Spread

OUTPUT = ROOT / "build/bench"


@dataclass(frozen=True)
class Report:
    """What one benchmark found."""

    machine: dict[str, str]
    comparisons: list[Comparison]


def save(bench: str, machine: Mapping[str, str], comparisons: Sequence[Comparison]) -> Report:
    """Write ``build/bench/<bench>.json``.

    Args:
        bench: The benchmark's short name.
        machine: The facts, taken before anything was measured.
        comparisons: What came out.
    """
    OUTPUT.mkdir(parents=True, exist_ok=True)
    report = Report(dict(machine), list(comparisons))
    (OUTPUT / f"{bench}.json").write_text(json.dumps(dataclasses.asdict(report), indent=1) + "\n")
    return report


def write(bench: str, machine: Mapping[str, str], comparisons: Sequence[Comparison]) -> None:
    """Write ``build/bench/<bench>.json``, see ``save``, and print its tables."""
    print("\n".join(tables(save(bench, machine, comparisons))))


def read(path: Path) -> Report:
    """Read what ``write`` wrote."""
    data = json.loads(path.read_text())
    return Report(data["machine"], [Comparison(**each) for each in data["comparisons"]])


def tables(report: Report) -> Iterator[str]:
    """Yield the lines of a report: the machine, then a table for each comparison."""
    yield "; ".join(f"{name} {value}" for name, value in report.machine.items()) + "."
    for comparison in report.comparisons:
        yield ""
        yield from table(comparison)


def table(comparison: Comparison) -> Iterator[str]:
    """Yield the Markdown lines of one comparison.

    A cell is the median, the least and the greatest of the rounds, and how many times the baseline's
    figure it is, the median of the rounds' ratios.
    """
    counted, repeated = len(comparison.rounds), len(comparison.repeated)
    short = f" of {comparison.wanted} that were wanted" if counted < comparison.wanted else ""
    yield f"### {comparison.title}"
    yield ""
    yield f"`{comparison.name}`: {counted} rounds{short}, {repeated} disturbed and repeated."
    yield ""
    yield "| | " + " | ".join(f"{name}, {unit}" for name, unit in comparison.units.items()) + " |"
    yield "|---|" + "---|" * len(comparison.units)
    for contender in comparison.contenders:
        failure = comparison.failure(contender)
        cells = [failure] if failure else [_cell(comparison, contender, name) for name in comparison.units]
        cells += [""] * (len(comparison.units) - len(cells))
        yield f"| {contender} | " + " | ".join(cells) + " |"


def _cell(comparison: Comparison, contender: str, figure: str) -> str:
    spread = comparison.spread(contender, figure)
    text = f"{number(spread.median)} ({_range(spread)})"
    ratio = comparison.ratio(contender, figure)
    # How many times a share of nothing is means nothing.
    if ratio is None or contender == comparison.baseline or comparison.units[figure] == "%":
        return text
    return f"{text}, **{ratio.median:.2f}x** ({ratio.least:.2f}-{ratio.greatest:.2f})"


def _range(spread: Spread) -> str:
    return f"{number(spread.least)}-{number(spread.greatest)}"


def number(value: float) -> str:
    """Write a figure with three digits that mean something, and thousands apart."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"
