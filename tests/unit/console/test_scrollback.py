"""The last output of a terminal, kept in memory that outlives its writer."""

from __future__ import annotations

import os
import tempfile

import pytest

from umlab.console.scrollback import SIZE, Scrollback


def test_short_output_is_all_there() -> None:
    scrollback = Scrollback()
    assert scrollback.read() == b""
    scrollback.write(b"one ")
    scrollback.write(b"")
    scrollback.write(b"two")
    assert scrollback.read() == b"one two"
    scrollback.close()


@pytest.mark.parametrize(
    "pieces", [(SIZE,), (SIZE, 1), (SIZE - 1, 2), (10, SIZE, 5), (3 * SIZE + 7,), (1000,) * 200]
)
def test_last_64_kib_are_kept_however_they_come(pieces: tuple[int, ...]) -> None:
    scrollback = Scrollback()
    written = b""
    for number, size in enumerate(pieces):
        piece = os.urandom(1) + bytes([number % 256]) * (size - 1)
        scrollback.write(piece)
        written += piece
    assert scrollback.read() == written[-SIZE:]
    scrollback.close()


def test_whoever_has_a_duplicate_goes_on_where_the_writer_was() -> None:
    first = Scrollback()
    first.write(b"x" * SIZE + b"before ")
    second = Scrollback(os.dup(first.fd))
    first.close()
    second.write(b"after")
    assert second.read().endswith(b"xbefore after")
    assert len(second.read()) == SIZE
    second.close()


def test_file_that_is_none_is_refused_and_closed() -> None:
    with tempfile.TemporaryFile() as file:
        fd = os.dup(file.fileno())
        with pytest.raises(ValueError, match="mmap"):
            Scrollback(fd)
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)
