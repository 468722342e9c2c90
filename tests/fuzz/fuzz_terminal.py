"""Throw output at a terminal's screen: nothing is raised, kept or passed on that should not be.

Run: ``python tests/fuzz/fuzz_terminal.py [libFuzzer options] [corpus]``, for example with
``-max_total_time=60 -max_len=2000``.
"""

from __future__ import annotations

import re
import sys

import atheris

with atheris.instrument_imports(include=["umlab"]):
    from umlab.console.passage import Passage
    from umlab.console.screen import Screen
    from umlab.console.window import Window

#: What a viewer that only looks may be sent.
OURS = re.compile(r"(?:\x1b\[(?:\d+;\d+H|\d+(?:;\d+)*m|K|2J|\?25[hl]|\?1049[hl])|[^\x00-\x1f\x7f-\x9f])*")
#: What would act on more than the screen of one that writes.
STRINGS = re.compile(r"\x1b[]PX^_k]|\x1b\[[^@-~]*[itxy]|\x05|[\x80-\x9f]")


def one_input(data: bytes) -> None:
    """Feed one input to a screen of a size that it names, and look at all that is made of it."""
    rows, columns = (data[0] % 9 + 1, data[1] % 20 + 1) if len(data) > 1 else (3, 9)
    half = len(data) // 2
    early = Screen(rows, columns)
    early.feed(data[2:half])
    late = Screen(rows, columns)
    late.feed(early.paint())
    for screen in (early, late):
        screen.feed(data[half:])
    assert [early.row(y) for y in range(rows)] == [late.row(y) for y in range(rows)]
    assert early.cursor == late.cursor
    assert all(line.isprintable() for line in early.lines())
    early.resize(columns, rows)
    window = Window(4, 7, "status")
    assert OURS.fullmatch((window.draw(early) + window.leave()).decode())
    assert not STRINGS.search(Passage().feed(data).decode())


def main() -> None:
    """Run the fuzzer."""
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
