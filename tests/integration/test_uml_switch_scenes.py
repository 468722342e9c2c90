"""Both switches in the same scenes: the original as it was recorded, ours but for the listed differences."""

from __future__ import annotations

import pytest

from integration.peers.record_uml_switch import OURS, RECORDED
from integration.peers.uml_switch_scenarios import SCENARIOS
from integration.peers.uml_switch_scene import play
from support.uml_switch_differences import differing_parts, listed_differences

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

DIFFERENCES = listed_differences()
SCENES = [
    pytest.param(name, marks=[pytest.mark.needs_root] if scenario.needs_root else [])
    for name, scenario in SCENARIOS.items()
]


@pytest.mark.parametrize("name", SCENES)
async def test_original_does_what_was_recorded(name: str) -> None:
    assert await play("original", SCENARIOS[name]) == (RECORDED / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", SCENES)
async def test_ours_does_the_same_or_what_is_listed(name: str) -> None:
    recorded = (OURS if name in DIFFERENCES else RECORDED) / f"{name}.txt"
    assert await play("ours", SCENARIOS[name]) == recorded.read_text()


@pytest.mark.parametrize("name", SCENARIOS)
def test_list_says_in_what_a_scene_differs(name: str) -> None:
    original, ours = RECORDED / f"{name}.txt", OURS / f"{name}.txt"
    differing = differing_parts(original.read_text(), ours.read_text()) if ours.exists() else set()
    assert differing == DIFFERENCES.get(name, set())


def test_list_and_recordings_name_only_scenes_that_exist() -> None:
    assert SCENARIOS.keys() >= DIFFERENCES.keys()
    assert SCENARIOS.keys() == {path.stem for path in RECORDED.glob("*.txt")}
    assert DIFFERENCES.keys() == {path.stem for path in OURS.glob("*.txt")}
