"""Answers of guests, as people and programs get them."""

from __future__ import annotations

import io

import pytest

from umlab.cli.console_page import Spans, answer, answers, reason, record, shown_name, write
from umlab.cli.guest_ls import _text
from umlab.cli.output import Output
from umlab.client.console import GuestConsole
from umlab.errors import (
    LabError,
    MconsoleError,
    MconsoleProtocolError,
    MconsoleTimeout,
    MconsoleUnreachable,
    UmlabError,
)
from umlab.mconsole.fleet import Outcome

DEAD = MconsoleUnreachable("db", "version", "does not run: nothing at /tmp/db")


def good(name: str, output: str) -> Outcome:
    return Outcome(name, output, None, 0.25)


def bad(name: str, error: UmlabError) -> Outcome:
    return Outcome(name, None, error, 0.25)


def plain(spans: Spans) -> str:
    return "".join(text for _, text in spans)


def test_one_guests_answer_stands_behind_its_mark() -> None:
    assert answer(good("a", "Linux\n")) == [("ok", "OK"), ("", " "), ("", "Linux\n")]
    assert plain(answer(good("a", ""))) == "OK\n"
    assert plain(answer(good("a", "one\ntwo\n"))) == "OK\none\ntwo\n"
    assert answer(bad("a", MconsoleError("a", "x", "Unknown command")))[0] == ("error", "ERR")
    assert plain(answer(bad("a", MconsoleError("a", "x", "")))) == "ERR failed without a reason\n"


def test_same_answers_stand_together_and_errors_are_marked() -> None:
    outcomes = [
        good("a", "Linux 6.1\n"),
        good("b", "Linux 6.12\n"),
        good("c", "Linux 6.1\n"),
        bad("db", DEAD),
    ]
    assert plain(answers(outcomes, 80)) == (
        "a, c  OK   Linux 6.1\nb     OK   Linux 6.12\ndb    ERR  does not run: nothing at /tmp/db\n"
    )
    # The same words are another thing where they are an error.
    same = [good("a", "no"), bad("b", MconsoleError("b", "x", "no"))]
    assert plain(answers(same, 80)) == "a  OK   no\nb  ERR  no\n"


def test_long_answers_stand_side_by_side_where_they_fit() -> None:
    outcomes = [good("a", "x: 1\ny:  22\nz\n"), good("b", "x: 2\n"), bad("db", DEAD)]
    assert plain(answers(outcomes, 60)) == (
        "a: OK   b: OK  db: ERR\nx: 1    x: 2   does not run: nothing at /tmp/db\ny:  22\nz\n"
    )
    below = "a: OK\nx: 1\ny:  22\nz\n\nb: OK\nx: 2\n\ndb: ERR\ndoes not run: nothing at /tmp/db\n"
    assert plain(answers(outcomes, 40)) == below
    assert plain(answers(outcomes, None)) == below


def test_names_of_many_are_shortened_and_counted() -> None:
    names = [f"web{number}" for number in range(1, 21)]
    assert (
        plain(answers([good(name, "Linux") for name in names], 80))
        == "web1 … web20 (20 guests)  OK   Linux\n"
    )
    # Who answers otherwise is not among them.
    outcomes = [good(name, "old" if name in ("web7", "web19") else "new") for name in names]
    assert plain(answers(outcomes, 60)) == (
        "web1 … web6, web8 … web18, web20 (18 guests): OK\nnew\n\nweb7, web19: OK\nold\n"
    )


def test_names_that_cannot_be_shortened_are_wrapped() -> None:
    outcomes = [good(f"web{number}", "odd" if number % 2 else "even") for number in range(100)]
    lines = plain(answers(outcomes, 80)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("web0, web2, ")
    assert [line for line in lines if line.endswith("(50 guests): OK")] == [lines[4], lines[11]]
    assert plain(answers(outcomes, None)).splitlines()[0].endswith("web98 (50 guests): OK")


def test_what_a_guest_says_cannot_drive_the_terminal() -> None:
    nasty = "\x1b]0;owned\x07\x9b5n\u202e\udc80"
    outcomes = [good(nasty, nasty), bad("b", MconsoleError("b", nasty, nasty))]
    for spans in (answer(outcomes[0]), answer(outcomes[1]), answers(outcomes, 80), answers(outcomes, None)):
        assert plain(spans).replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MconsoleError("a", "x", "Unknown command"), "Unknown command"),
        (MconsoleTimeout("a", "x", ""), "did not answer in time, it may be hung or stopped"),
        (
            MconsoleTimeout("a", "x", "Lin"),
            "did not answer in time, it may be hung or stopped; it said: Lin",
        ),
        (MconsoleProtocolError("a", "x", "", "bad length"), "the answer makes no sense: bad length"),
        (DEAD, "does not run: nothing at /tmp/db"),
        (LabError("hm"), "hm"),
    ],
)
def test_reason_says_what_is_wrong_and_no_more(error: UmlabError, text: str) -> None:
    assert reason(error) == text


def test_programs_get_the_text_as_it_is() -> None:
    guest = GuestConsole("a", lab="lan")
    assert record(guest, good("a", "\x1b[31m\n")) == {
        "guest": "a",
        "lab": "lan",
        "ok": True,
        "output": "\x1b[31m\n",
        "error": None,
        "seconds": 0.25,
    }
    refused = record(guest, bad("a", MconsoleError("a", "x", "Unknown command")))
    assert (refused["ok"], refused["output"], refused["error"]) == (
        False,
        "Unknown command",
        "Unknown command",
    )
    dead = record(guest, bad("a", DEAD))
    assert (dead["output"], dead["error"]) == ("", "does not run: nothing at /tmp/db")


def test_bytes_of_a_name_are_shown_as_in_the_list() -> None:
    assert shown_name("web\udcff") == _text("web\udcff") == r"web\xff"
    # What no byte stands behind.
    assert shown_name("web\ud800") == _text("web\ud800") == r"web\ud800"


def test_name_of_several_lines_is_one_line() -> None:
    assert shown_name("a\nb\tc\x1b") == "a\\nb\\tc\\x1b"
    assert plain(answers([good("a\nb", "x"), good("c", "x")], 80)) == "a\\nb, c  OK   x\n"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    spans = answer(good("a", ":smile: [bold]x[/bold]"))
    text = "OK :smile: [bold]x[/bold]\n"

    def written(file: io.StringIO) -> str:
        monkeypatch.setattr("sys.stdout", file)
        write(spans, Output(as_json=False))
        return file.getvalue()

    assert written(Terminal()) == text.replace("OK", "\x1b[32mOK\x1b[0m")
    assert written(io.StringIO()) == text
    monkeypatch.setenv("NO_COLOR", "1")
    assert written(Terminal()) == text
