"""Record what the C ``uml_switch`` prints, does and leaves in each scene.

Run from the folder ``tests``: ``python -m integration.peers.record_uml_switch``, once as root and once
as a plain user who may write here (each records the scenes that only they can see).
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from integration.peers.uml_switch_scenarios import SCENARIOS, play

RECORDED = Path(__file__).parents[1] / "recorded" / "uml_switch"


async def _record() -> None:
    user = "root" if os.geteuid() == 0 else "plain"
    RECORDED.mkdir(parents=True, exist_ok=True)
    for name, scenario in SCENARIOS.items():
        if scenario.user in ("", user):
            transcript = await play("original", scenario)
            (RECORDED / f"{name}.txt").write_text(transcript)
            print(f"== {name}\n{transcript}")


if __name__ == "__main__":
    asyncio.run(_record())
