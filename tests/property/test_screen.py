"""A terminal's screen: nothing that a guest prints makes it fail, and its picture is the screen."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from umlab.console.screen import Screen
from umlab.console.sequence import MAX_SEQUENCE, Kind, Splitter

#: Pieces of what programs send, and of what they should not.
PIECES = (
    *(
        "a",
        "text ",
        "wide \u4e16\u754c",
        "e\u0301\u0302\u0303\u0304\u0305",
        "\u200d",
        "\u202e",
        "\xa0\u3000",
        "\ue000",
    ),
    *("\r", "\n", "\r\n", "\t", "\b", "\x07", "\x0e", "\x0f", "\x18", "\x1a", "\x7f", "\x9b5A", "\x00"),
    *("\x1b7", "\x1b8", "\x1bc", "\x1bD", "\x1bE", "\x1bH", "\x1bM", "\x1b=", "\x1b>", "\x1b#8", "\x1bZ"),
    *(
        "\x1b(0qqx",
        "\x1b)0",
        "\x1b(B",
        "\x1b%@",
        "\x1b\\",
        "\x1b",
        "\x1b[",
        "\x1b[3",
        "\x1b[?",
        "\x1b(",
        "\x1b#",
    ),
    *("\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[?47l", "\x1b[?1048h", "\x1b[?3h", "\x1b[!p"),
    *(
        "\x1b[4h",
        "\x1b[4l",
        "\x1b[20h",
        "\x1b[?6h",
        "\x1b[?6l",
        "\x1b[?7l",
        "\x1b[?7h",
        "\x1b[?25l",
        "\x1b[?1;2004h",
    ),
    *(
        "\x1b[m",
        "\x1b[1;31;44m",
        "\x1b[38;5;1m",
        "\x1b[48;5;200;7m",
        "\x1b[38;2;1;2;300m",
        "\x1b[105;9m",
        "\x1b[38;5m",
    ),
    *(
        "\x1b[2;4r",
        "\x1b[r",
        "\x1b[3g",
        "\x1b[g",
        "\x1b[3;5H",
        "\x1b[99;99H",
        "\x1b[s",
        "\x1b[u",
        "\x1b[;;;;H",
    ),
    *("\x1b]0;title\x07", "\x1b]52;c;aGk=\x1b\\", "\x1b]0;", "\x1bPq\x1b\\", "\x1b_x", "\x1bktitle\x1b\\"),
    *(
        "\x1b[6n",
        "\x1b[c",
        "\x1b[>c",
        "\x1b[21t",
        "\x1b[" + "1" * 100 + "A",
        "\x1b[" + "9" * 60 + "m",
        "\x1b[1:2m",
    ),
)
FINALS = "@ABCDEFGIJKLMPSTXZ`abdegmhlr"
PRINTED = st.one_of(
    st.sampled_from(PIECES).map(str.encode),
    st.tuples(st.sampled_from(["", "?", ">"]), st.integers(0, 12), st.sampled_from(FINALS)).map(
        lambda each: f"\x1b[{each[0]}{each[1] or ''}{each[2]}".encode()
    ),
    st.binary(max_size=8),
)
OUTPUT = st.lists(PRINTED, max_size=40).map(b"".join)
SIZE = st.tuples(st.integers(1, 7), st.integers(1, 12))


def state(screen: Screen) -> object:
    rows = [screen.row(y) for y in range(screen.size[0])]
    return rows, screen.cursor, screen.cursor_shown, screen.is_alternate


@given(SIZE, OUTPUT, OUTPUT)
def test_late_viewer_sees_what_an_early_one_sees_now_and_ever_after(
    size: tuple[int, int], before: bytes, after: bytes
) -> None:
    early = Screen(*size)
    early.feed(before)
    late = Screen(*size)
    late.feed(early.paint())
    assert state(late) == state(early)
    for screen in (early, late):
        screen.feed(after)
    assert state(late) == state(early)
    # Whatever was put away comes out alike as well.
    for screen in (early, late):
        screen.feed(b"\x1b8\x1b[?1049l\x1b8x")
    assert state(late) == state(early)


@given(SIZE, SIZE, OUTPUT, OUTPUT)
def test_size_may_change_at_any_time(
    size: tuple[int, int], then: tuple[int, int], before: bytes, after: bytes
) -> None:
    screen = Screen(*size)
    screen.feed(before)
    screen.resize(*then)
    assert screen.size == then
    screen.feed(after)
    late = Screen(*then)
    late.feed(screen.paint())
    assert state(late) == state(screen)


@given(OUTPUT, st.lists(st.integers(1, 9), max_size=50))
def test_pieces_make_no_difference(output: bytes, sizes: list[int]) -> None:
    whole, pieces = Screen(5, 10), Screen(5, 10)
    whole.feed(output)
    rest = output
    for size in sizes:
        pieces.feed(rest[:size])
        rest = rest[size:]
    pieces.feed(rest)
    assert state(whole) == state(pieces)


@given(OUTPUT)
def test_text_of_a_screen_can_be_shown(output: bytes) -> None:
    screen = Screen(4, 10)
    screen.feed(output)
    for line in screen.lines():
        assert line.isprintable()
        assert len(line) <= 40
    row, column = screen.cursor
    assert 0 <= row < 4
    assert 0 <= column <= 10


@given(OUTPUT)
def test_splitter_gives_whole_bounded_pieces(output: bytes) -> None:
    splitter = Splitter()
    for kind, text in splitter.feed(output):
        assert len(text) <= MAX_SEQUENCE
        if kind is Kind.TEXT:
            assert not re.search("[\x00-\x1f\x7f-\x9f]", text)
        elif kind is Kind.CONTROL:
            assert len(text) == 1
            assert text < " "
        else:
            assert re.fullmatch("\x1b[ -~]+", text)
    assert len(splitter.pending) <= MAX_SEQUENCE + 3
