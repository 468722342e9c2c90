"""Lines of the console's shell, and the guests that they mean."""

from __future__ import annotations

import pytest

from umlab.cli.console_line import Line, parse_line, select

GUESTS = {
    "web1": ("web1", "lan/web1"),
    "lan/db": ("db", "lan/db"),
    "ring/db": ("db", "ring/db"),
    "left": ("left", "/tmp/uml/left/mconsole"),
}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", Line(None, "")),
        ("  proc   loadavg ", Line(None, "proc   loadavg")),
        ("@all version", Line(("all",), "version")),
        (" @web*,db\tproc loadavg", Line(("web*", "db"), "proc loadavg")),
        ("@all", Line(("all",), "")),
        ("@", Line((), "")),
        ("@,, version", Line((), "version")),
        ("log @all", Line(None, "log @all")),
    ],
)
def test_line_is_for_the_guests_in_front_of_it(text: str, line: Line) -> None:
    assert parse_line(text) == line


def test_line_has_a_verb_and_the_rest() -> None:
    line = parse_line("@all log  a  b ")
    assert (line.verb, line.rest) == ("log", "a  b")
    assert (parse_line("").verb, parse_line("go").rest) == ("", "")


@pytest.mark.parametrize(
    ("patterns", "chosen", "unmatched"),
    [
        (("all",), list(GUESTS), []),
        (("db",), ["lan/db", "ring/db"], []),
        (("lan/*",), ["web1", "lan/db"], []),
        (("left", "w?b[0-9]"), ["web1", "left"], []),
        (("web1", "WEB1", "nobody"), ["web1"], ["WEB1", "nobody"]),
        (("/tmp/uml/left/mconsole",), ["left"], []),
        ((), [], []),
    ],
)
def test_patterns_choose_guests_in_their_order(
    patterns: tuple[str, ...], chosen: list[str], unmatched: list[str]
) -> None:
    assert select(patterns, GUESTS) == (chosen, unmatched)
