"""The list of deliberate differences between ``uml_mconsole`` and the original, read from the manual."""

from __future__ import annotations

from pathlib import Path

from support.mconsole_cases import CASES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "uml_mconsole-differences.md"
HEADER = ("Cases", "Differs in", "Original", "Ours, and why")


def listed_differences() -> dict[str, set[str]]:
    """Return, for each case that differs, in which parts of its outcome.

    Raises:
        AssertionError: The page's table is missing, names an unknown case, or names one twice.
    """
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("|")
    ]
    assert tuple(rows[0]) == HEADER, rows[0]
    known = {case.name for case in CASES}
    listed: dict[str, set[str]] = {}
    for cases, parts, *_ in rows[2:]:
        for name in cases.replace("`", "").split(", "):
            assert name in known, f"{name} is not a case"
            assert name not in listed, f"{name} is listed twice"
            listed[name] = set(parts.split(", "))
    return listed
