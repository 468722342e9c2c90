"""A YAML document as plain values that know their lines.

Every scalar is text, or ``None`` where a key has no value: what it means is the schema's business, so
neither ``02:00:00:00:00:01`` nor ``no`` turns into something else.  Lab files come from anywhere, so
what makes YAML costly is bounded or refused: size, nodes, depth, and everything that refers to
something else (anchors, aliases, merge keys, tags).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

#: Bytes of a file; the slowest one takes a third of a second.
MAX_SIZE = 256 << 10
#: Keys, values and ends of lists in a file: some 1000 guests.
MAX_EVENTS = 20_000
#: Mappings and lists within each other; the schema has five.
MAX_DEPTH = 8
#: Characters of a text that an error shows.
SHOWN = 64

Key = tuple[str | int, ...]
Value = str | None | list[Any] | dict[str, Any]

_NULL = ("", "~", "null")
#: What is no text, and what only YAML would count as the end of a line.
_FORBIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong.

    Attributes:
        line: Where, from 1.
        key: At which key; empty for the file as a whole.
        reason: What is wrong with it.
    """

    line: int
    key: Key
    reason: str


@dataclass(slots=True)
class Document:
    """What a text says.

    Attributes:
        tree: Its values.
        lines: The line of each key and list item, by its path; the root's is ``()``.
        problems: What is wrong in spite of which the rest could be read.
    """

    tree: Value = None
    lines: dict[Key, int] = field(default_factory=lambda: {(): 1})
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, key: Key) -> int:
        """Return the line of a key, or where it is missing of the nearest one above it."""
        while key not in self.lines:
            key = key[:-1]
        return self.lines[key]


def read_document(data: bytes) -> Document:
    """Read the one YAML document in a file's bytes; never raises, the problems say what it is worth."""
    document = Document()
    if len(data) > MAX_SIZE:
        document.problems.append(Problem(1, (), f"more than {MAX_SIZE >> 10} KiB are too much for a lab"))
        return document
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        document.problems.append(Problem(line, (), f"byte {data[error.start]:#04x} is not UTF-8 text"))
        return document
    if match := _FORBIDDEN.search(text):
        line = text.count("\n", 0, match.start()) + 1
        document.problems.append(Problem(line, (), f"the character U+{ord(match[0]):04X} is no text"))
        return document
    # What is missing at the end is missed behind the last line's end.
    last = max(1, len(text.splitlines()))
    try:
        _Composer(text, document, last).compose()
    except _Stop as stop:
        document.problems.append(stop.problem)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, last) if mark else 1
        document.problems.append(Problem(line, (), _syntax_reason(error)))
    except (YAMLError, ValueError, OverflowError, AssertionError):
        # Escapes of no character, versions that are no number: raised without a place.
        document.problems.append(Problem(1, (), "not YAML"))
    return document


class _Stop(Exception):
    """The rest is not worth reading, or not safe to."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.problem = problem


class _Composer:
    """Builds a document's values from the parser's events."""

    def __init__(self, text: str, document: Document, last: int) -> None:
        self._document = document
        self._last = last
        self._events = self._bounded(YAML(typ="safe", pure=True).parse(text))

    def compose(self) -> None:
        """Take all events."""
        next(self._events)
        event = next(self._events)
        if isinstance(event, StreamEndEvent):
            self._problem(event, (), "the file is empty")
            return
        event = next(self._events)
        self._document.lines[()] = self._line(event)
        self._document.tree = self._value(event, ())
        if self._document.tree is None:
            self._problem(event, (), "the file is empty")
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                raise _Stop(Problem(self._line(event), (), "a second document begins; a lab file has one"))

    def _bounded(self, events: Iterator[Any]) -> Iterator[Any]:
        depth = 0
        for count, event in enumerate(events):
            if count > MAX_EVENTS:
                raise _Stop(Problem(self._line(event), (), "more keys and values than any lab has"))
            if isinstance(event, MappingStartEvent | SequenceStartEvent):
                depth += 1
            elif isinstance(event, MappingEndEvent | SequenceEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                raise _Stop(Problem(self._line(event), (), f"more than {MAX_DEPTH} levels within each other"))
            yield event

    def _value(self, event: Any, key: Key) -> Value:
        if isinstance(event, AliasEvent):
            raise _Stop(Problem(self._line(event), key, "aliases are not read; write the value out"))
        if event.anchor is not None:
            self._problem(event, key, "anchors are not read; remove it")
        if event.tag is not None:
            self._problem(event, key, "tags are not read; remove it")
        if isinstance(event, ScalarEvent):
            return self._scalar(event, key)
        if isinstance(event, SequenceStartEvent):
            return self._list(key)
        return self._mapping(key)

    def _scalar(self, event: Any, key: Key) -> str | None:
        text = str(event.value)
        if event.style is None and text in _NULL:
            return None
        if not text.isprintable():
            self._problem(event, key, f"{text[:SHOWN]!r} is not one line of printable text")
            return "?"
        return text

    def _list(self, key: Key) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            item = (*key, len(items))
            self._document.lines.setdefault(item, self._line(event))
            items.append(self._value(event, item))
        return items

    def _mapping(self, key: Key) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            name = self._value(event, key) if isinstance(event, ScalarEvent | AliasEvent) else None
            if not isinstance(name, str):
                raise _Stop(Problem(self._line(event), key, "a key must be one word of text"))
            path = (*key, name)
            if name in values:
                first = self._document.lines[path]
                self._problem(event, path, f"it is there twice, first in line {first}")
                self._value(next(self._events), path)
                continue
            self._document.lines.setdefault(path, self._line(event))
            values[name] = self._value(next(self._events), path)
        return values

    def _line(self, event: Any) -> int:
        return min(int(event.start_mark.line) + 1, self._last)

    def _problem(self, event: Any, key: Key, reason: str) -> None:
        self._document.problems.append(Problem(self._line(event), key, reason))


def _syntax_reason(error: MarkedYAMLError) -> str:
    problem = " ".join(str(error.problem or error.context or "").split())
    if "'\\t'" in problem:
        return "a tab stands where YAML allows none; indent with blanks"
    if problem.startswith("found undefined alias"):
        return "aliases are not read; write the value out"
    return f"not YAML: {problem[:200]}"
