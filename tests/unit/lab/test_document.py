"""YAML as text with lines, and what is refused before it can cost anything."""

from __future__ import annotations

import time

import pytest

from support.deadline import scaled
from umlab.lab.document import MAX_DEPTH, MAX_EVENTS, MAX_SIZE, Document, read_document


def read(text: str) -> Document:
    return read_document(text.encode())


def problem(data: bytes) -> tuple[int, str]:
    """Return the line and reason of the only problem."""
    (found,) = read_document(data).problems
    return found.line, found.reason


def test_every_scalar_is_text_and_knows_its_line() -> None:
    document = read("a:\n  mac: 02:00:00:00:00:01\nb:\n  - no\n  - 1\nc:\n")
    assert document.problems == []
    assert document.tree == {"a": {"mac": "02:00:00:00:00:01"}, "b": ["no", "1"], "c": None}
    assert document.lines == {
        (): 1,
        ("a",): 1,
        ("a", "mac"): 2,
        ("b",): 3,
        ("b", 0): 4,
        ("b", 1): 5,
        ("c",): 6,
    }
    assert document.line_of(("b", 1, "missing", 3)) == 5
    assert document.line_of(("nothing",)) == 1


@pytest.mark.parametrize("text", ["a: ~", "a: null", "a:", "{a}"])
def test_key_without_a_value_has_none(text: str) -> None:
    assert read(text).tree == {"a": None}


@pytest.mark.parametrize(
    ("value", "meant"),
    [("'~'", "~"), ('"null"', "null"), ('""', ""), ("yes", "yes"), ("0x10", "0x10"), ("1_0", "1_0")],
)
def test_quotes_make_any_word_a_text(value: str, meant: str) -> None:
    assert read(f"a: {value}").tree == {"a": meant}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(end: str) -> None:
    document = read(end.join(["\ufeff# first", "a:", "  b: 1", ""]))
    assert document.tree == {"a": {"b": "1"}}
    assert document.lines[("a", "b")] == 3


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"", 1, "empty"),
        (b"# only a comment\n", 1, "empty"),
        (b"---\n", 1, "empty"),
        (b"a: 1\nb: \xff\n", 2, "0xff is not UTF-8"),
        (b"a: 1\nb: \0\n", 2, "U+0000"),
        (b"a: 1\nb: \xe2\x80\xa8\n", 2, "U+2028"),
        (b"a:\n\tb: 1\n", 2, "a tab"),
        (b"a: [1\nb: 2\n", 2, "not YAML"),
        (b"a: 'x\n", 1, "not YAML"),
        (b'a: 1\nb: "\\UFFFFFFFF"\n', 1, "not YAML"),
        (b'a: 1\nb: "x\\ty"\n', 2, "printable"),
        (b'a: "\\uD800"\n', 1, "printable"),
        (b"a: |\n  x\n  y\n", 1, "one line"),
        (b"a: 1\n---\nb: 2\n", 2, "second document"),
        (b"a: 1\na: 2\n", 2, "twice, first in line 1"),
        (b"a: 1\nb: &x 1\n", 2, "anchors"),
        (b"a: 1\nb: *x\n", 2, "aliases"),
        (b"a: 1\n<<: *x\n", 2, "aliases"),
        (b"a: 1\nb: !!python/name:os.system 2\n", 2, "tags"),
        (b"a: 1\n? [b]\n: 2\n", 2, "a key must be"),
        (b"a: 1\n{b: c}: 2\n", 2, "a key must be"),
        (b"a: 1\n: 2\n", 2, "a key must be"),
    ],
)
def test_what_is_not_read_is_named_with_its_line(data: bytes, line: int, words: str) -> None:
    where, reason = problem(data)
    assert where == line
    assert words in reason


def test_what_can_be_passed_over_does_not_hide_the_rest() -> None:
    found = read("a: &x 1\nb: !t 2\na: 3\nc: *x\n").problems
    assert [each.line for each in found] == [1, 2, 3, 4]


def test_second_value_of_a_key_leaves_the_first_ones_lines() -> None:
    document = read("a:\n  b: 1\na:\n  b: 2\n")
    assert document.tree == {"a": {"b": "1"}}
    assert document.lines[("a", "b")] == 2


def test_limits_are_exact() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH).problems == []
    assert "levels" in problem(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))[1]
    # Beside the items: begin and end of stream, document and list.
    assert read("[" + "a," * (MAX_EVENTS - 5) + "]").problems == []
    assert "any lab" in problem(b"[" + b"a," * (MAX_EVENTS - 4) + b"]")[1]
    assert read("a: 1\n#".ljust(MAX_SIZE, "x")).problems == []
    assert "KiB" in problem(b"a: 1\n#".ljust(MAX_SIZE + 1, b"x"))[1]


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(60))
BOMBS = {
    "size": "a" * (1 << 20),
    "laughs": LAUGHS,
    "flow depth": "[1," * (MAX_SIZE // 3),
    "block depth": "".join(" " * n + "a:\n" for n in range(700)),
    "dashes": "- " * (MAX_SIZE // 2),
    "map": "a: b\n" * (MAX_SIZE // 5),
    "many keys": "".join(f"k{n}: v\n" for n in range(MAX_SIZE // 12)),
    "words": "a: " + "x " * (MAX_SIZE // 2 - 2),
    "empty lines": "\n" * MAX_SIZE,
    "comments": "#\n" * (MAX_SIZE // 2),
    "tag": "!" * MAX_SIZE,
    "directives": "".join(f"%TAG !a{n}! b\n" for n in range(MAX_SIZE // 20)),
    "documents": "---\n" * (MAX_SIZE // 4),
    "escapes": '"' + "\\x41" * (MAX_SIZE // 4 - 1) + '"',
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_bomb_is_read_in_little_time(text: str) -> None:
    begin = time.process_time()
    read(text)
    assert time.process_time() - begin < scaled(2)
