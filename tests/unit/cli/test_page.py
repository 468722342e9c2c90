"""Pages for programs and for people who do not sit at a terminal."""

from __future__ import annotations

import pytest

from umlab.cli.page import Page, Table, fitted, plain_table, present

TABLE = Table(("NAME", " PORTS", "WHERE"), [("lan", "2", "[red]/x[/red]"), ("office", "120", "")])


def test_plain_table_is_as_wide_as_it_needs_to_be() -> None:
    assert plain_table(TABLE).splitlines() == [
        "NAME    PORTS  WHERE",
        "lan         2  [red]/x[/red]",
        "office    120",
    ]


def test_page_is_text_or_one_object_per_line(capsys: pytest.CaptureFixture[str]) -> None:
    page = Page([{"a": 1}, {"a": 2}], ["two things", TABLE])
    present(lambda: page, as_json=True)
    assert capsys.readouterr().out == '{"a": 1}\n{"a": 2}\n'
    present(lambda: page, as_json=False)
    assert capsys.readouterr().out == f"two things\n{plain_table(TABLE)}\n"


def test_terminal_shows_names_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks like markup is a name."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    present(lambda: Page([], [":warning: [b]x[/b]", TABLE]), as_json=False)
    out = capsys.readouterr().out
    assert ":warning: [b]x[/b]" in out
    assert "[red]/x[/red]" in out


def test_page_is_built_anew_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    pages = iter([Page([{"n": 1}]), Page([{"n": 2}])])
    # The third one is one too many, which ends it.
    with pytest.raises(StopIteration):
        present(lambda: next(pages), as_json=True, watch=0.01)
    assert capsys.readouterr().out == '{"n": 1}\n{"n": 2}\n'


def test_narrow_terminal_does_without_spare_columns() -> None:
    table = Table(("NAME", " PORTS", "WHERE"), [("lan", "2", "/x"), ("b", "120", "/y")], (" PORTS", "WHERE"))
    assert fitted(table, 18) == table
    assert fitted(table, 17).headings == ("NAME", "WHERE")
    assert fitted(table, 17).rows == [("lan", "/x"), ("b", "/y")]
    assert fitted(table, 10).headings == ("NAME",)
    assert fitted(table, 2).headings == ("NAME",)
