"""Our ``uml_mconsole`` does what the original was recorded doing, but for the listed differences.

The recordings hold the guest's answers too, so no guest is needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.answering_guest import answering_guest
from support.mconsole_cases import CASES, OURS, Case, Outcome, Place
from support.mconsole_differences import listed_differences
from umlab.testing.fault import answer

RECORDINGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "integration/recorded/uml_mconsole/recordings.json").read_text()
)
DIFFERENCES = listed_differences()


def recorded(case: Case) -> Outcome:
    recording = RECORDINGS[case.name]
    return Outcome(
        recording["stdout"].encode("latin-1"),
        recording["stderr"].encode("latin-1"),
        recording["status"],
        recording["signalled"],
        [exchange["request"].encode("latin-1") for exchange in recording["exchanges"]],
    )


def replay(case: Case, root: Path) -> Outcome:
    """Run ours against the answers that the original got, in their order."""
    # What ours asks and the original did not was answered in another case, or is unknown to the kernel.
    everywhere = {
        exchange["request"]: exchange["replies"]
        for recording in RECORDINGS.values()
        for exchange in recording["exchanges"]
        if exchange["replies"]
    }
    waiting = list(RECORDINGS[case.name]["exchanges"])
    general: list[bytes] = []

    def answering(text: bytes) -> list[bytes]:
        request = text.replace(bytes(root), b"{root}").decode("latin-1")
        general.append(request.encode("latin-1"))
        replies = everywhere.get(request)
        for exchange in waiting:
            if exchange["request"] == request:
                waiting.remove(exchange)
                replies = exchange["replies"]
                break
        if replies is None and waiting:
            # A request that ours words differently.
            replies = waiting.pop(0)["replies"]
        if replies is None:
            return answer(b"Unknown command", 1)
        # The length on the wire is that of the text as it was recorded, not as it is now.
        return [_with_root(reply.encode("latin-1"), bytes(root)) for reply in replies]

    place = Place(root)
    with answering_guest(place.socket, answering):
        outcome = place.run(OURS, case)
    outcome.requests = general
    return outcome


def _with_root(reply: bytes, root: bytes) -> bytes:
    text = reply[12:].replace(b"{root}", root)
    return reply[:8] + len(text).to_bytes(4, "little") + text


def test_every_case_is_recorded() -> None:
    assert [case.name for case in CASES] == list(RECORDINGS)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_outcome_differs_from_the_original_only_as_listed(case: Case, short_dir: Path) -> None:
    original, ours = recorded(case), replay(case, short_dir / "p")
    assert ours.difference(original) == DIFFERENCES.get(case.name, set()), (original, ours)
