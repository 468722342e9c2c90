"""Holes of files, as the file system tells."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from umlab.guest.disk.holes import DataMap

MIB = 1 << 20
BLOCK = 4096


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """Yield a file of 4 MiB with data in two blocks."""
    fd = os.open(tmp_path / "sparse", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, 4 * MIB)
    for at in (MIB, 2 * MIB):
        os.pwrite(fd, b"x" * BLOCK, at)
    yield fd
    os.close(fd)


def test_stretches_are_those_of_the_file_system(fd: int) -> None:
    blocks = [(MIB, BLOCK), (2 * MIB, BLOCK)]
    for start, end, found in (
        (0, 1 << 40, blocks),
        (0, 2 * MIB, blocks[:1]),
        (0, MIB, []),
        (MIB + 10, MIB + 20, [(MIB + 10, 10)]),
        (MIB + 10, 2 * MIB + 1, [(MIB + 10, BLOCK - 10), (2 * MIB, 1)]),
        (3 * MIB, 9 * MIB, []),
        (9 * MIB, 10 * MIB, []),
    ):
        assert list(DataMap(fd).stretches(start, end)) == found


def test_one_look_serves_all_that_lies_in_a_stretch(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    seek = os.lseek

    def counted(fd: int, at: int, how: int) -> int:
        looks.append(at)
        return seek(fd, at, how)

    monkeypatch.setattr(os, "lseek", counted)
    sparse = DataMap(fd)
    found = [each for at in range(0, 4 * MIB, 512) for each in sparse.stretches(at, at + 512)]
    assert sum(length for _, length in found) == 2 * BLOCK
    assert found[0] == (MIB, 512)
    # Two for each stretch, and one for each step behind the last.
    assert len(looks) <= 4 + 2 * MIB // 512


def test_what_cannot_tell_is_data_as_a_whole() -> None:
    reader, writer = os.pipe()
    try:
        assert list(DataMap(reader).stretches(5, 9)) == [(5, 4)]
    finally:
        os.close(reader)
        os.close(writer)
