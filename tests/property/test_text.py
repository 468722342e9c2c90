"""Text of peers: whatever they send, one line that does nothing to a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umlab.wire.text import printable_line


@given(st.binary(max_size=512))
def test_text_is_printable_and_bounded(data: bytes) -> None:
    shown = printable_line(data)
    assert shown == "" or shown.isprintable()
    assert len(shown) <= 4 * 512
