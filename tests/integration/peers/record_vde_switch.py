"""Record what both ``vde_switch`` programs print, do and leave in each scene.

Run as root from the folder ``tests``: ``python -m integration.peers.record_vde_switch``.  What ours does is
recorded where it differs, so that a review sees a change of it; docs/reference/vde_switch-differences.md
has to list each such scene.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from integration.peers.scene_record import record
from integration.peers.vde_switch_scenarios import SCENARIOS
from integration.peers.vde_switch_scene import play

RECORDED = Path(__file__).parents[1] / "recorded" / "vde_switch"
OURS = RECORDED / "ours"


if __name__ == "__main__":
    asyncio.run(record(RECORDED, SCENARIOS, play))
