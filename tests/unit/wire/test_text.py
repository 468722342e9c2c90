"""Text of peers, as people see it."""

from __future__ import annotations

import pytest

from umlab.wire.text import printable_line


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"vdeplug: user=root pid=1", "vdeplug: user=root pid=1"),
        (b"J\xc3\xbcrgen\0garbage", "J\xfcrgen"),
        (b" a\n", "a"),
        (b"a\x1b[31m\nb", r"a\x1b[31m\nb"),
        (b"\xff\xfe", r"\xff\xfe"),
        ("a\u202eb\U0001f600".encode(), "a\\u202eb\U0001f600"),
        (b"\0x", ""),
    ],
)
def test_text_is_one_printable_line(data: bytes, shown: str) -> None:
    assert printable_line(data) == shown
