"""What a terminal is sent, cut into text, controls and escape sequences; bounded whatever comes.

Titles, clipboards, palettes and all else that is a string between an introducer and a terminator (OSC, DCS,
SOS, PM, APC) is passed over.  Controls of eight bits are none here: in UTF-8 they are malformed, and as
characters they are dropped.

Source: ECMA-48, and Paul Williams' parser for ANSI-compatible terminals.
"""

from __future__ import annotations

import codecs
import enum
import re
from collections.abc import Iterator

#: Characters of a sequence; a longer one is passed over.
MAX_SEQUENCE = 64
_TEXT = re.compile("[^\x00-\x1f\x7f-\x9f]{1,64}")
_STRINGS = frozenset("]PX^_k")
_ESC, _BEL, _CANCEL = "\x1b", "\x07", "\x18\x1a"


class Kind(enum.Enum):
    """What a piece of output is."""

    TEXT = "text"
    CONTROL = "control"
    ESCAPE = "escape"
    CSI = "csi"


class _State(enum.Enum):
    GROUND = enum.auto()
    ESCAPE = enum.auto()
    CSI = enum.auto()
    STRING = enum.auto()


class Splitter:
    """Cuts one stream of output, which comes in any pieces."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._state = _State.GROUND
        #: What has come of a sequence; of a string, its introducer.
        self._sequence = ""

    @property
    def pending(self) -> bytes:
        """What to send another terminal so that it waits for the same end as this splitter does."""
        return self._sequence.encode() + self._decoder.getstate()[0]

    def feed(self, data: bytes) -> Iterator[tuple[Kind, str]]:
        """Yield what is whole now.

        Args:
            data: What came next.

        Yields:
            What it is and the characters: up to 64 printable or zero-width ones; one control below 0x20; or
            a whole sequence that begins with ESC, 64 characters at most.
        """
        text = self._decoder.decode(data)
        at = 0
        while at < len(text):
            if self._state is _State.GROUND and (match := _TEXT.match(text, at)):
                yield Kind.TEXT, match[0]
                at = match.end()
                continue
            kind = self._step(text[at])
            if kind is Kind.CONTROL:
                yield kind, text[at]
            elif kind is not None:
                sequence, self._sequence = self._sequence, ""
                yield kind, sequence
            at += 1

    def _step(self, char: str) -> Kind | None:
        """Take one character; say what it completes."""
        if char in _CANCEL:
            self._enter(_State.GROUND, "")
        elif char == _ESC:
            self._enter(_State.ESCAPE, char)
        elif self._state is _State.STRING:
            # A bell ends only the first of them.
            if char == _BEL and self._sequence == "\x1b]":
                self._enter(_State.GROUND, "")
        elif char < " ":
            return Kind.CONTROL
        elif self._state is not _State.GROUND and not "\x7f" <= char <= "\x9f":
            return self._escape(char)
        return None

    def _escape(self, char: str) -> Kind | None:
        """Take one character of a sequence."""
        is_csi = self._state is _State.CSI
        if char <= ("?" if is_csi else "/"):
            # One character too many stands for all that are.
            if len(self._sequence) < MAX_SEQUENCE:
                self._sequence += char
        elif self._sequence == _ESC and char == "[":
            self._enter(_State.CSI, "\x1b[")
        elif self._sequence == _ESC and char in _STRINGS:
            self._enter(_State.STRING, "\x1b]" if char == "]" else "\x1bX")
        else:
            return self._complete(Kind.CSI if is_csi else Kind.ESCAPE, char)
        return None

    def _complete(self, kind: Kind, char: str) -> Kind | None:
        self._state = _State.GROUND
        if len(self._sequence) >= MAX_SEQUENCE or char > "~":
            self._sequence = ""
            return None
        self._sequence += char
        return kind

    def _enter(self, state: _State, sequence: str) -> None:
        self._state, self._sequence = state, sequence
