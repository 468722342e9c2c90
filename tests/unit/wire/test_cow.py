"""COW files as bytes: all versions, where bitmap and data lie, and headers that would kill a kernel."""

from __future__ import annotations

import dataclasses
import os
import struct

import pytest

from support.cow_files import KINDS, header, places
from umlab.errors import (
    BadMagic,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
    UnsupportedVersion,
)
from umlab.wire.cow import (
    MAX_HEADER,
    CowHeader,
    changed_sectors,
    parse_cow_header,
    serialize_cow_header,
)

PATH = b"/srv/a.img"
V1, V2, V3, BROKEN_V3 = (header(kind, PATH, 7, 1 << 20) for kind in KINDS)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("v1", CowHeader(1, PATH, 7, 1 << 20, 512, 512)),
        ("v2", CowHeader(2, PATH, 7, 1 << 20, 512, 512)),
        ("v3", CowHeader(3, PATH, 7, 1 << 20)),
        ("broken", CowHeader(3, PATH, 7, 1 << 20, broken=True)),
    ],
)
def test_every_version_is_read_and_written(kind: str, expected: CowHeader) -> None:
    data = header(kind, PATH, 7, 1 << 20)
    assert parse_cow_header(data) == parse_cow_header(data + bytes(99)) == expected
    assert serialize_cow_header(expected) == data
    assert len(data) <= MAX_HEADER
    with pytest.raises(TruncatedMessage):
        parse_cow_header(data[:-1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 512, 4096, 4097, 1 << 20, (1 << 20) + 100, (1 << 24) + 1])
def test_bitmap_and_data_lie_where_the_kernel_has_them(kind: str, size: int) -> None:
    parsed = parse_cow_header(header(kind, PATH, 7, size))
    assert (parsed.bitmap_offset, parsed.bitmap_length, parsed.data_offset) == places(kind, size)
    assert parsed.sectors == (size + 511) // 512


def test_offsets_are_those_of_a_disk_of_one_mebibyte() -> None:
    found = [(parsed.bitmap_offset, parsed.data_offset) for parsed in map(parse_cow_header, (V1, V2, V3))]
    assert found == [(280, 1024), (4120, 4608), (8192, 12288)]


def test_what_is_behind_the_path_is_not_looked_at() -> None:
    # Kernels leave there what was in their memory.
    parsed = parse_cow_header(V3[: 32 + len(PATH) + 1] + os.urandom(4096 - len(PATH) - 1))
    assert parsed.backing == PATH


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedMessage),
        (b"OOOM", TruncatedMessage),
        (bytes(5000), BadMagic),
        (struct.pack(">II", 0x4F4F4F4D, 1) + bytes(5000), UnsupportedVersion),
        (struct.pack(">II", 0x4F4F4F4D, 4) + bytes(5000), UnsupportedVersion),
        (V1[:-4] + bytes(4), RemoteProtocolError),
        (V2[:-4] + bytes(4), RemoteProtocolError),
        (V3[:20] + bytes(4) + V3[24:], RemoteProtocolError),
        (V3[:24] + bytes(4) + V3[28:], RemoteProtocolError),
        (V1[:8] + b"x" * 256 + V1[264:], RemoteProtocolError),
        (V3[:32] + b"x" * 4096, RemoteProtocolError),
        (BROKEN_V3[:24] + bytes(4) + BROKEN_V3[28:], RemoteProtocolError),
    ],
)
def test_what_no_kernel_can_use_is_refused(data: bytes, error: type) -> None:
    with pytest.raises(error):
        parse_cow_header(data)


@pytest.mark.parametrize(
    ("version", "backing", "mtime"),
    [
        (1, b"/" + b"x" * 255, 7),
        (2, b"/" + b"x" * 4095, 7),
        (3, b"", 7),
        (3, b"/a\0b", 7),
        (3, b"/a", 1 << 32),
    ],
)
def test_what_a_header_cannot_keep_is_refused(version: int, backing: bytes, mtime: int) -> None:
    longest = dataclasses.replace(parse_cow_header(V1), version=version, backing=b"/" + b"x" * 254)
    assert parse_cow_header(serialize_cow_header(longest)).backing == longest.backing
    with pytest.raises(LocalProtocolError):
        serialize_cow_header(CowHeader(version, backing, mtime, 1 << 20))


@pytest.mark.parametrize(
    ("bitmap", "sectors", "runs"),
    [
        (b"", 0, []),
        (bytes(1000), 8000, []),
        (b"\x01", 8, [(0, 1)]),
        (b"\x00\xff", 16, [(8, 8)]),
        (b"\x80\xff\x01", 24, [(7, 10)]),
        (b"\xa5\x00\x03", 24, [(0, 1), (2, 1), (5, 1), (7, 1), (16, 2)]),
        (b"\xff\xff", 11, [(0, 11)]),
        (b"\x01\xff", 5, [(0, 1)]),
    ],
)
def test_runs_of_changed_sectors(bitmap: bytes, sectors: int, runs: list[tuple[int, int]]) -> None:
    assert list(changed_sectors(bitmap, sectors)) == runs
