"""The original ``uml_mconsole`` and ours, side by side with the same real guest."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.peers.minimal_guest import MinimalGuest, minimal_guest
from support.mconsole_cases import CASES, OURS, Case, Outcome, Place
from support.mconsole_differences import listed_differences
from support.require import require_program
from umlab.guest.process import HALT_STATUSES
from umlab.testing import SimulatedGuests

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

DIFFERENCES = listed_differences()
RECORDINGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "recorded/uml_mconsole/recordings.json").read_text()
)
LIVE = [case for case in CASES if not (case.silent or case.destructive)]


@pytest.fixture(scope="module")
def guest() -> Iterator[MinimalGuest]:
    with minimal_guest("drop1", "quiet") as running:
        yield running


@pytest.fixture(scope="module")
def outcomes(guest: MinimalGuest) -> dict[str, dict[str, Outcome]]:
    """Run all cases with each program: some need the state that the ones before left."""
    programs = {"original": [str(require_program("uml_mconsole"))], "ours": OURS}
    return {who: _run_all(program, guest) for who, program in programs.items()}


def _run_all(program: list[str], guest: MinimalGuest) -> dict[str, Outcome]:
    root = guest.uml_dir / "p"
    found = {}
    for case in LIVE:
        place = Place(root)
        place.socket.symlink_to(guest.socket)
        try:
            found[case.name] = place.run(program, case)
        finally:
            shutil.rmtree(root)
    return found


def _comparable(case: Case, outcome: Outcome) -> Outcome:
    if case.volatile:
        outcome.stdout = re.sub(rb"[0-9.]+", b"0", outcome.stdout)
    # What reaches the guest is compared with recordings, where it can be watched.
    outcome.requests = []
    return outcome


@pytest.mark.parametrize("case", LIVE, ids=[case.name for case in LIVE])
def test_outcome_differs_only_as_listed(case: Case, outcomes: dict[str, dict[str, Outcome]]) -> None:
    original, ours = (_comparable(case, outcomes[who][case.name]) for who in ("original", "ours"))
    assert ours.difference(original) == DIFFERENCES.get(case.name, set()) - {"requests"}, (original, ours)


@pytest.fixture
def place(guest: MinimalGuest) -> Iterator[Place]:
    root = guest.uml_dir / "q"
    made = Place(root)
    made.socket.symlink_to(guest.socket)
    yield made
    shutil.rmtree(root)


def test_hung_guest_ends_the_program_with_a_message(guest: MinimalGuest, place: Place) -> None:
    """The original waits for ever."""
    guest.pause()
    try:
        outcome = place.run(OURS, Case("hung", ("m1", "version")))
    finally:
        guest.resume()
    message = b"guest m1 did not answer within 5 seconds; it may be hung or stopped\n"
    assert outcome == Outcome(b"", message, 1, False)


def test_long_answers_arrive_whole(guest: MinimalGuest, place: Place) -> None:
    """The original loses what comes after eleven unread fragments, and then waits for ever."""
    assert place.run(OURS, Case("level", ("m1", "sysrq", "8"))).status == 0
    memory = place.run(OURS, Case("memory", ("m1", "sysrq", "m")))
    assert (memory.status, memory.stderr) == (0, b"")
    assert memory.stdout.startswith(b"OK sysrq: Show Memory\n")
    assert memory.stdout.endswith(b"pages reserved\n\n")
    crypto = place.run(OURS, Case("crypto", ("m1", "proc", "crypto")))
    assert (crypto.status, crypto.stderr) == (0, b"")
    assert crypto.stdout.startswith(b"OK \nname ")
    assert len(crypto.stdout) > 8 * 511


def test_int_ends_the_guest_itself(place: Place) -> None:
    with minimal_guest("drop2") as other:
        outcome = place.run(OURS, Case("int", (str(other.run_directory), "int")))
        assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"", b"")
        assert other.wait_gone() == 1


def test_halt_ends_the_guest_in_order(place: Place) -> None:
    with minimal_guest("drop3") as other:
        outcome = place.run(OURS, Case("halt", (str(other.run_directory), "halt")))
        assert (outcome.status, outcome.stdout, outcome.stderr) == (0, b"OK \n", b"")
        assert other.wait_gone() in HALT_STATUSES
        assert not other.run_directory.exists()
        again = place.run(OURS, Case("halt", (str(other.run_directory), "halt")))
        assert (again.status, again.stdout) == (1, b"")
        assert b"does not run: nothing at" in again.stderr
        assert again.stderr.count(b"\n") == 1


def test_original_takes_a_simulated_guest_for_a_real_one(short_dir: Path) -> None:
    """Everything that it was recorded doing with a kernel, it does with the double."""
    program = [str(require_program("uml_mconsole"))]
    place = Place(short_dir / "p")
    compared = []
    with SimulatedGuests(place.socket.parents[1]) as guests:
        guests.add(place.socket.parent.name)
        for case in LIVE:
            recording = RECORDINGS[case.name]
            # Where the original waits for ever, so does this; where it crashes, how it does is chance.
            if (
                recording["status"] is None
                or recording["status"] < 0
                or case.typed is not None
                or not recording["exchanges"]
            ):
                continue
            outcome = _comparable(case, place.run(program, case))
            expected = [recording[stream].encode("latin-1") for stream in ("stdout", "stderr")]
            recorded = _comparable(case, Outcome(*expected, recording["status"], recording["signalled"]))
            assert outcome == recorded, case.name
            compared.append(case.name)
    assert len(compared) > 50
