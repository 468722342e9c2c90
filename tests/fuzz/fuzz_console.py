"""Throw words of guests, and of who types, at the console: what it shows is harmless, and nothing is raised.

Run: ``python tests/fuzz/fuzz_console.py [libFuzzer options] [corpus]``.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.cli.console_complete import Known, candidates
    from umlab.cli.console_line import parse_line, select
    from umlab.cli.console_page import Spans, answer, answers
    from umlab.cli.console_verb import danger
    from umlab.errors import MconsoleError
    from umlab.mconsole.fleet import Outcome


def check(spans: Spans) -> None:
    """Demand that a terminal finds nothing to obey."""
    assert all(char == "\n" or char.isprintable() for _, text in spans for char in text)


def one_input(data: bytes) -> None:
    """Take the input for guests' names and answers, and for a line."""
    words = [part.decode("utf-8", "backslashreplace") for part in data.split(b"\0")]
    outcomes = [Outcome(f"{name}{at}", name[::-1], None, 0) for at, name in enumerate(words)]
    outcomes.append(Outcome("refuses", None, MconsoleError("refuses", "x", words[0]), 0))
    check(answer(outcomes[0]))
    for width in (None, 40, 200):
        check(answers(outcomes, width))
    line = parse_line(words[0])
    danger(line.text)
    select(line.patterns or (), {word: (word,) for word in words})
    typed, found = candidates(words[0], Known(dict.fromkeys(words, ""), {}))
    assert all(word.startswith(typed) for word in found)


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
