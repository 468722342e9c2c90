"""A guest's screen in another window, and what may pass to a terminal of a viewer that writes."""

from __future__ import annotations

import re

import pytest

from support.hostile_output import HOSTILE, OURS
from umlab.console.passage import Passage
from umlab.console.screen import Screen
from umlab.console.window import Window


def text_of(rows: int, columns: int, output: bytes) -> list[str]:
    terminal = Screen(rows, columns)
    terminal.feed(output)
    return terminal.lines()


@pytest.mark.parametrize("size", [(25, 80), (5, 20), (2, 3), (1, 1), (100, 200)])
def test_hostile_output_reaches_no_terminal_of_a_viewer_that_only_looks(size: tuple[int, int]) -> None:
    screen, window = Screen(), Window(*size, "left")
    drawn = window.draw(screen)
    for each in (*HOSTILE, *HOSTILE[::-1]):
        screen.feed(each + "wide \u4e16\u754c".encode() + b"\x1b[31;48;5;99;1mred\x1b[3C\r\n")
        drawn += window.draw(screen)
    drawn += window.leave()
    assert OURS.fullmatch(drawn.decode())
    assert drawn.endswith(b"\x1b[?1049l")


def test_window_shows_the_part_with_the_cursor() -> None:
    screen = Screen(10, 30)
    screen.feed(b"".join(b"\x1b[%d;1Hline %d ends here" % (y + 1, y) for y in range(10)))
    window = Window(4, 10, "status line")
    shown = text_of(4, 10, window.draw(screen))
    # Row 9 and the cursor behind its text.
    assert shown == ["ends here"[-9:]] * 3 + ["status lin"]
    output = window.draw(screen)
    assert b"ends" not in output
    screen.feed(b"\x1b[2;1H")
    terminal = Screen(4, 10)
    terminal.feed(window.draw(screen))
    assert terminal.lines()[:3] == ["line 1 end", "line 2 end", "line 3 end"]
    assert terminal.cursor == (0, 0)
    window.resize(12, 40)
    shown = text_of(12, 40, window.draw(screen))
    assert shown[0] == "line 0 ends here"
    assert shown[-1] == "status line"


def test_window_draws_what_has_changed() -> None:
    screen, window, terminal = Screen(5, 20), Window(6, 20, ""), Screen(6, 20)
    for piece in (
        b"one\r\n",
        b"\x1b[1;4m two\x1b[m",
        b"\x1b[1;1H\x1b[44m\x1b[K",
        b"\x1b[?25l\x1b[3;3Hx\x1b[5;20Hend",
    ):
        screen.feed(piece)
        terminal.feed(window.draw(screen))
        assert [terminal.row(y) for y in range(5)] == [screen.row(y) for y in range(5)]
        assert terminal.cursor_shown == screen.cursor_shown
    assert b"one" not in window.draw(screen)


def test_half_of_a_wide_character_is_a_blank() -> None:
    screen, window = Screen(3, 10), Window(4, 3, "")
    screen.feed("\u4e16\u4e16\u4e16\x1b[1;4H".encode())
    shown = text_of(4, 3, window.draw(screen))
    assert shown[0] == " \u4e16"


def test_what_acts_on_more_than_the_screen_does_not_pass() -> None:
    passage = Passage()
    allowed = {b"\x1b[6n", b"\x1b[c", b"\x1b[>c"}
    for each in HOSTILE:
        passed = passage.feed(each + b"\x18")
        if each in allowed:
            assert passed == each
        else:
            assert not re.search(rb"\x1b|[\x00-\x06]|\xc2[\x80-\x9f]", passed), each
            assert not re.search(rb"title|cm0g|tmux|pm|sos", passed)


def test_what_programs_need_passes_in_any_pieces() -> None:
    output = (
        "\x1b[?1049h\x1b[22;1H\x1b[?1;2004h\x1b[1;24r\x1b[38;2;1;2;3m\x1b[4:3mtext \u4e16\x1b(0q"
        "\x1b(B\x1b[K\x1b[3 q"
        "\x1b[2J\x1b[10L\x1b[5P\x1b7\x1b8\x1bM\x1b=\x1b>\x1b[?25l\x1b[4h\x1b[4l\x1b[6n\x07\t\r\n\x1b[!p\x1b[?2J"
    ).encode()
    passage = Passage()
    assert b"".join(passage.feed(output[at : at + 1]) for at in range(len(output))) == output
    assert passage.feed(b"\x1b[?3;25;1004;1049l") == b"\x1b[?25;1049l"
    assert b"1049" not in passage.leave()
    passage.feed(b"\x1b[?47h")
    assert passage.leave().endswith(b"\x1b[?1049l")
    passage.feed(b"\x1bc")
    assert b"1049" not in passage.leave()


def test_picture_of_a_screen_passes() -> None:
    screen = Screen(5, 20)
    screen.feed(
        "\x1b[2;4r\x1b[?6h\x1b[31mred\x1b[?1049h\x1b[3g\x1b[5G\x1bH\x1b(0q\x1b[?66;1000h\u4e16".encode()
    )
    assert Passage().feed(screen.paint()) == screen.paint()
