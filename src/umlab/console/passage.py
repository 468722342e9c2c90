"""What a guest prints, on its way to a terminal that belongs to it for a while.

A viewer that writes has its guest's programs on its own terminal: an editor must work there.  What acts on
more than the screen does not pass: strings (titles, clipboards, palettes, links, pictures), window
operations, printing, and requests whose answers say what somebody else has set.  Two kinds of requests do
pass, since programs need them and their answers are numbers of a fixed form: where the cursor is, and what
kind of terminal this is.

Source: xterm's ctlseqs.
"""

from __future__ import annotations

import re

from umlab.console.sequence import Kind, Splitter

#: Bell, back, tab, line ends, character sets.  Not ENQ, whose answer is the user's own text.
_CONTROLS = frozenset("\x07\x08\t\n\x0b\x0c\r\x0e\x0f")
_ESCAPE = re.compile(r"\x1b(?:[78=>cDEHMno|}~]|#[3-8]|[()*+][0-9A-Za-z])")
#: Parameters are numbers; the rest of what passes has few forms.
_NUMBERS = r"[0-9;:]*"
_SEQUENCE = re.compile(
    rf"\x1b\[(?:{_NUMBERS}[@A-MPSTXZ`abdefgmrsu]|\?[0-9]?[JK]|[56]n|0?c|>0?c|!p|[0-9]? q|(?:4|20)[hl])"
)
_MODES = re.compile(r"\x1b\[\?([0-9;]*)([hl])")
#: Cursor keys, reversed screen, origin, wrap, cursor, keypad, alternate screen, mouse, bracketed paste.
_PRIVATE_MODES = frozenset(
    {
        "1",
        "5",
        "6",
        "7",
        "12",
        "25",
        "47",
        "66",
        "1000",
        "1002",
        "1003",
        "1006",
        "1047",
        "1048",
        "1049",
        "2004",
    }
)
_ALTERNATE = frozenset({"47", "1047", "1049"})
#: What is put back where a guest may have left it otherwise.
_RESTORE = "\x1b[!p\x1b[0m\x1b(B\x0f\x1b>\x1b[?5;1000;1002;1003;1006;2004l\x1b[?7;25h\x1b[4;20l"


class Passage:
    """The way of one guest's output to one terminal."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self._alternate = False

    def feed(self, data: bytes) -> bytes:
        """Return what of this may reach the terminal: UTF-8, and no sequence that is not whole."""
        return "".join(self._passed(kind, text) for kind, text in self._splitter.feed(data)).encode()

    def leave(self) -> bytes:
        """Return what gives the terminal back as it was, but for what it shows."""
        return (_RESTORE + ("\x1b[?1049l" if self._alternate else "")).encode()

    def _passed(self, kind: Kind, text: str) -> str:
        if kind is Kind.TEXT:
            return text
        if kind is Kind.CONTROL:
            return text if text in _CONTROLS else ""
        if kind is Kind.ESCAPE:
            self._alternate &= text != "\x1bc"
            return text if _ESCAPE.fullmatch(text) else ""
        if (match := _MODES.fullmatch(text)) is not None:
            modes = [mode for mode in match[1].split(";") if mode in _PRIVATE_MODES]
            if _ALTERNATE.intersection(modes):
                self._alternate = match[2] == "h"
            return f"\x1b[?{';'.join(modes)}{match[2]}" if modes else ""
        return text if _SEQUENCE.fullmatch(text) else ""
