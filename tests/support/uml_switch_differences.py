"""The lists of deliberate differences between our switches and the originals, read from the manual."""

from __future__ import annotations

from pathlib import Path

PAGES = Path(__file__).parents[2] / "docs" / "reference"
HEADER = ["Scenes", "Differs in", "Original", "Ours, and why"]
#: The parts of a transcript: how its lines begin, and how the page calls it.
PARTS = {
    "stdout:": "stdout",
    "stderr:": "stderr",
    "seen:": "seen",
    "status:": "end",
    "signal:": "end",
    "left:": "left",
}


def listed_differences(program: str = "uml_switch") -> dict[str, set[str]]:
    """Return, for each scene of a program that differs, in which parts of its transcript.

    Raises:
        AssertionError: The page's table is missing, or names a scene twice.
    """
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in (PAGES / f"{program}-differences.md").read_text().splitlines()
        if line.startswith("|")
    ]
    assert rows[0] == HEADER, rows[0]
    listed: dict[str, set[str]] = {}
    for scenes, parts, *_ in rows[2:]:
        for name in scenes.replace("`", "").split(", "):
            assert name not in listed, f"{name} is listed twice"
            listed[name] = set(parts.split(", "))
    return listed


def differing_parts(one: str, other: str) -> set[str]:
    """Return the names of the parts in which two transcripts of a scene differ."""

    def part(transcript: str, name: str) -> list[str]:
        lines = transcript.splitlines()[1:]
        return [line for line in lines if PARTS[line.split(" ", 1)[0]] == name]

    return {name for name in PARTS.values() if part(one, name) != part(other, name)}
