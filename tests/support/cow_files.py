"""COW files as the kernel's sources describe them, written without umlab."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from pathlib import Path

#: Versions 1, 2 and 3, and 3 as some old 64-bit programs wrote it.
KINDS = ("v1", "v2", "v3", "broken")

_MAGIC = 0x4F4F4F4D
SECTOR = 512


def header(
    kind: str, backing: bytes, mtime: int, size: int, sector: int = SECTOR, align: int = 4096
) -> bytes:
    """Return a header."""
    match kind:
        case "v1":
            return struct.pack("<II256sIQI", _MAGIC, 1, backing, mtime, size, sector)
        case "v2":
            return struct.pack(">II4096sIQI", _MAGIC, 2, backing, mtime, size, sector)
        case "v3":
            return struct.pack(">IIIQIII4096s", _MAGIC, 3, mtime, size, sector, align, 0, backing)
    return struct.pack(">IIIIQIII4096s", _MAGIC, 3, mtime, 0, size, sector, align, 0, backing)


def places(kind: str, size: int) -> tuple[int, int, int]:
    """Return where the bitmap begins, its bytes, and where the data begins."""
    if kind in ("v1", "v2"):
        begin = 280 if kind == "v1" else 4120
        length = (size + SECTOR - 1) // (8 * SECTOR)
        return begin, length, (begin + length + SECTOR - 1) // SECTOR * SECTOR
    length = ((size + SECTOR - 1) // SECTOR + 7) // 8
    return 8192, length, (8192 + length + 4095) // 4096 * 4096


def write_cow(path: Path, kind: str, backing: Path, changes: Mapping[int, bytes]) -> None:
    """Write a COW file of a backing file.

    Args:
        path: Where it goes.
        kind: One of :data:`KINDS`.
        backing: The backing file, as it stays.
        changes: What is in the sectors that are changed.
    """
    status = backing.stat()
    bitmap_at, length, data_at = places(kind, status.st_size)
    bitmap = bytearray(length)
    with path.open("wb") as file:
        file.write(header(kind, os.fsencode(backing), int(status.st_mtime), status.st_size))
        file.truncate(data_at + status.st_size)
        for sector, data in changes.items():
            bitmap[sector // 8] |= 1 << sector % 8
            os.pwrite(file.fileno(), data, data_at + sector * SECTOR)
        os.pwrite(file.fileno(), bitmap, bitmap_at)


def merged(backing: bytes, changes: Mapping[int, bytes]) -> bytes:
    """Return what a guest sees of a disk, and a last sector as far as anybody has written it."""
    image = bytearray(backing)
    for sector, data in changes.items():
        image[sector * SECTOR : sector * SECTOR + len(data)] = data
    return bytes(image)
