"""Whatever is typed into the console's shell is a line, and nothing of a command is lost."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.cli.console_complete import Known, candidates
from umlab.cli.console_line import parse_line, select
from umlab.cli.console_page import shown
from umlab.cli.console_verb import danger

WORDS = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Z"], blacklist_characters="@,"), min_size=1)
COMMANDS = st.lists(WORDS, min_size=1).map(" ".join)


@given(st.text())
def test_any_text_is_a_line(text: str) -> None:
    line = parse_line(text)
    assert line.text == line.text.strip()
    assert line.text in text
    assert (line.patterns is None) == (not text.strip().startswith("@"))
    assert line.text.startswith(line.verb)
    assert line.text.endswith(line.rest)
    danger(text)


@given(st.lists(WORDS, min_size=1), COMMANDS)
def test_selector_and_command_are_read_as_written(patterns: list[str], command: str) -> None:
    line = parse_line(f" @{','.join(patterns)}  {command} ")
    assert (line.patterns, line.text) == (tuple(patterns), command)


@given(st.lists(st.text()), st.lists(st.text(), unique=True))
def test_every_pattern_chooses_or_is_told(patterns: list[str], names: list[str]) -> None:
    chosen, unmatched = select(patterns, {name: (name,) for name in names})
    assert [name for name in names if name in chosen] == chosen
    assert bool(chosen) or set(unmatched) == set(patterns)


@given(st.text(), st.dictionaries(st.text(), st.text(), max_size=3))
def test_completion_goes_on_with_what_is_typed_and_shows_nothing_odd(
    text: str, guests: dict[str, str]
) -> None:
    typed, words = candidates(text, Known(guests, guests))
    assert text.endswith(typed)
    assert all(word.startswith(typed) and word.isprintable() for word in words)


@given(st.text())
def test_what_is_shown_is_harmless(text: str) -> None:
    assert all(char in "\n\t" or char.isprintable() for char in shown(text))
