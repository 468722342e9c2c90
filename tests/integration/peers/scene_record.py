"""Recording what an original and ours print, do and leave in each scene."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TypeVar

Scenario = TypeVar("Scenario")


async def record(
    folder: Path, scenarios: Mapping[str, Scenario], play: Callable[[str, Scenario], Awaitable[str]]
) -> None:
    """Write a file for each scene of the original, and one in ``ours`` where ours differs.

    Args:
        folder: Where to.
        scenarios: By name.
        play: Plays one to ``original`` or ``ours`` and returns its transcript.
    """
    ours_folder = folder / "ours"
    ours_folder.mkdir(parents=True, exist_ok=True)
    for name, scenario in scenarios.items():
        original = await play("original", scenario)
        ours = await play("ours", scenario)
        (folder / f"{name}.txt").write_text(original)
        (ours_folder / f"{name}.txt").unlink(missing_ok=True)
        if ours != original:
            (ours_folder / f"{name}.txt").write_text(ours)
        print(name, "differs" if ours != original else "is the same")
