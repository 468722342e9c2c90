"""Files are told by their beginnings: as real programs make them, and as the formats say."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
from pathlib import Path

import pytest

from support.require import require_program
from umlab.wire.cow import CowHeader, serialize_cow_header
from umlab.wire.magic import HEAD_SIZE, block_size, file_kind


def tar() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("etc"))
    return data.getvalue()


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_file_systems_of_mke2fs_are_told_apart(kind: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    subprocess.run([require_program("mke2fs"), "-q", "-t", kind, image, "8M"], check=True)
    with open(image, "rb") as file:
        assert file_kind(file.read(HEAD_SIZE)) == kind


@pytest.mark.parametrize("size", [1024, 2048, 4096])
def test_blocks_are_as_large_as_mke2fs_made_them(size: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    subprocess.run([require_program("mke2fs"), "-q", "-b", str(size), image, "8M"], check=True)
    head = image.read_bytes()[:HEAD_SIZE]
    assert block_size(head) == size
    assert block_size(head[1:]) is None
    assert block_size(head[:1048] + b"\x07" + head[1049:]) is None


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (gzip.compress(b"x", mtime=0), "gzip"),
        (lzma.compress(b"x"), "xz"),
        (bz2.compress(b"x"), "bzip2"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd"),
        (tar(), "tar"),
        (b"QFI\xfb\0\0\0\3", "qcow2"),
        (serialize_cow_header(CowHeader(3, b"/image", 1, 1 << 20)), "cow"),
        (serialize_cow_header(CowHeader(1, b"/image", 1, 1 << 20)), "cow"),
        (bytes(65_600) + b"_BHRfS_M", "btrfs"),
        (b"hsqs", "squashfs"),
        (bytes(510) + b"\x55\xaa", "partitions"),
        (bytes(HEAD_SIZE), ""),
        (b"", ""),
        # Cut before its features.
        (bytes(1080) + b"\x53\xef", ""),
    ],
)
def test_beginnings_are_known(head: bytes, kind: str) -> None:
    assert file_kind(head) == kind
