"""How a guest is, in the toolbar."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.lab_thread import LabThread
from umlab.cli import console_state
from umlab.cli.console_state import GuestState, look, toolbar
from umlab.client.console import GuestConsole
from umlab.testing import SimulatedGuests
from umlab.testing.fault import garbage, silent


async def test_guest_is_seen_as_it_is(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SimulatedGuests(short_dir) as guests:
        web = guests.add("web1", release="6.12.3")
        console = GuestConsole("web1", path=str(web.path))
        web.kernel.facts.load = (0.5, 0.25, 12.0)
        assert await look(console) == GuestState("answers", "6.12.3", "0.50 0.25 12.00")
        web.kernel.stopped = True
        assert (await look(console)).word == "stopped"
        web.kernel.stopped = False
        # Kernels that cannot tell these are nothing special.
        del web.kernel.files["loadavg"], web.kernel.files["stat"]
        assert await look(console) == GuestState("answers", "6.12.3")
        web.kernel.facts.release = "6." + "1" * 50
        assert len((await look(console)).release) == 32
        web.set_fault(garbage())
        assert await look(console) == GuestState("garbled")
        web.set_fault(silent)
        monkeypatch.setattr(console_state, "ANSWER_TIME", 0.1)
        assert await look(console) == GuestState("silent")
        web.end()
        assert await look(console) == GuestState("dead")


async def test_guest_of_a_lab_that_is_gone_is_dead(runtime: Path) -> None:
    assert await look(GuestConsole("left", lab="lan")) == GuestState("dead")
    with LabThread(runtime, "lan"):
        assert await look(GuestConsole("left", lab="lan")) == GuestState("dead")


@pytest.mark.parametrize(
    ("guest", "state", "text"),
    [
        (None, GuestState(), " no guest; choose one with: switch NAME "),
        (GuestConsole("a", path="/a"), GuestState(), " a  no lab  ? "),
        (
            GuestConsole("a", lab="lan"),
            GuestState("answers", "6.1.176\x1b[2J", "0.00 0.01 0.05"),
            " a  lab lan  answers  6.1.176\\x1b[2J  load 0.00 0.01 0.05 ",
        ),
    ],
)
def test_toolbar_tells_all_that_is_known(guest: GuestConsole | None, state: GuestState, text: str) -> None:
    assert "".join(words for _, words in toolbar("a", guest, state)) == text


def test_toolbar_marks_what_is_not_well() -> None:
    def style(word: str) -> str:
        return dict(
            (text, style) for style, text in toolbar("a", GuestConsole("a", lab="b"), GuestState(word))
        )[f" {word} "]

    assert style("answers") == "class:state.ok"
    assert {style(word) for word in ("stopped", "silent", "garbled", "dead")} == {"class:state.bad"}
