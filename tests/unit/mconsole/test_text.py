"""A guest's text on a terminal."""

from __future__ import annotations

import pytest

from umlab.mconsole.text import escape_controls


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain \xc3\xa4 text\n\tindented", "plain \u00e4 text\n\tindented"),
        (b"\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        (b"over\rwrite\x7f\x00", "over\\x0dwrite\\x7f\\x00"),
        (b"csi \xc2\x9b31m", "csi \\x9b31m"),
        (b"raw \x9b31m", "raw \\x9b31m"),
    ],
)
def test_nothing_is_left_to_obey(data: bytes, shown: str) -> None:
    assert escape_controls(data) == shown
