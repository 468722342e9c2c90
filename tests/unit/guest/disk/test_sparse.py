"""Copies have the same bytes and no more on the disk."""

from __future__ import annotations

import io
import os
import random
from pathlib import Path

import pytest

from umlab.guest.disk import sparse
from umlab.guest.disk.sparse import chunks, copy_file, write_sparse


def copied(source: Path, target: Path) -> list[int]:
    """Copy a file and return what was told meanwhile."""
    told: list[int] = []
    with open(source, "rb") as old, open(target, "xb") as new:
        copy_file(old.fileno(), new.fileno(), told.append)
    return told


def test_holes_stay_and_zeros_become_some(tmp_path: Path) -> None:
    data = {0: b"head", (5 << 20) + 3: b"x" * 100_000, 40 << 20: bytes(4 << 20)}
    with open(tmp_path / "old", "wb") as file:
        for offset, part in data.items():
            os.pwrite(file.fileno(), part, offset)
        os.ftruncate(file.fileno(), 50 << 20)
    told = copied(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == (tmp_path / "old").read_bytes()
    status = (tmp_path / "new").stat()
    assert status.st_blocks * 512 < 1 << 20
    assert told == sorted(told)
    assert told


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, (1 << 20) + 1])
def test_files_of_any_length_are_copied_whole(size: int, tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(random.Random(size).randbytes(size))
    copied(tmp_path / "old", tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == (tmp_path / "old").read_bytes()


def test_stream_in_small_pieces_is_written_whole_and_sparse(tmp_path: Path) -> None:
    data = b"a" * 100_000 + bytes(3 << 20) + b"b" * 10
    stream = io.BytesIO(data)
    with open(tmp_path / "new", "xb") as file:
        size = write_sparse(file.fileno(), chunks(lambda _: stream.read(7777)), lambda _: None)
    assert size == len(data)
    assert (tmp_path / "new").read_bytes() == data
    assert (tmp_path / "new").stat().st_blocks * 512 < 1 << 20


def test_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"x" * 10)
    with (
        open(tmp_path / "old", "rb") as old,
        open("/dev/full", "wb") as full,
        pytest.raises(OSError, match="No space"),
    ):
        sparse.copy_file(old.fileno(), full.fileno(), lambda _: None)
