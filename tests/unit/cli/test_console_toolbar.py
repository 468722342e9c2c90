"""What the toolbar says of a guest."""

from __future__ import annotations

import pytest

from umlab.cli.console_toolbar import toolbar
from umlab.client.console import GuestConsole
from umlab.daemon.view import GuestVitals


@pytest.mark.parametrize(
    ("guest", "vitals", "text"),
    [
        (None, None, " no guest; choose one with: switch NAME "),
        (GuestConsole("a", path="/a"), None, " a  no lab  ? "),
        (
            GuestConsole("a", lab="lan"),
            GuestVitals("a", "answers", release="6.1.176\x1b[2J", load=(0.0, 0.01, 0.05)),
            " a  lab lan  answers  6.1.176\\x1b[2J  load 0.00 0.01 0.05 ",
        ),
        (
            GuestConsole("a", path="/a"),
            GuestVitals("a", "stopped", release="6." + "1" * 50),
            f" a  no lab  stopped  6.{'1' * 30} ",
        ),
        # What it has said long ago is not how it is.
        (GuestConsole("a", path="/a"), GuestVitals("a", "silent", release="6.1.176"), " a  no lab  silent "),
    ],
)
def test_toolbar_tells_all_that_is_known(
    guest: GuestConsole | None, vitals: GuestVitals | None, text: str
) -> None:
    assert "".join(words for _, words in toolbar("a", guest, vitals)) == text


def test_toolbar_marks_what_is_not_well() -> None:
    def style(state: str) -> str:
        parts = toolbar("a", GuestConsole("a", lab="b"), GuestVitals("a", state))
        return {text: style for style, text in parts}[f" {state} "]

    assert style("answers") == "class:state.ok"
    assert style("?") == ""
    assert {style(state) for state in ("stopped", "silent", "garbled", "unreachable")} == {"class:state.bad"}
