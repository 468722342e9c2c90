"""Headers of COW files, which UML's block devices keep their changes in.

Source: Linux arch/um/drivers/cow_user.c.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from umlab.errors import BadMagic, RemoteProtocolError, TruncatedMessage, UnsupportedVersion

#: Bytes from the beginning of a file that hold any header.
MAX_HEADER = 4136
_MAGIC = 0x4F4F4F4D
_START_LE, _START_BE = struct.Struct("<II"), struct.Struct(">II")
#: Versions 1 and 2: the backing file's path, then mtime, size and the size of a sector.
_V1, _V2 = struct.Struct("<8x256sIQI"), struct.Struct(">8x4096sIQI")
#: Version 3: mtime, size, the size of a sector, alignment, how the bitmap is kept, the path; and as some
#: old 64-bit programs wrote it.
_V3, _BROKEN_V3 = struct.Struct(">8xIQIII4096s"), struct.Struct(">8xI4xQIII4096s")
#: Where the path of a proper version 3 begins.
_V3_PATH = 32


@dataclass(frozen=True, slots=True)
class CowHeader:
    """What a COW file says of itself.

    Attributes:
        version: 1 to 3.
        backing: The backing file's path, raw.
        mtime: When that was changed last, seconds since 1970, modulo 2^32.
        size: Its bytes.
        sector_size: Bytes that are kept together.
    """

    version: int
    backing: bytes
    mtime: int
    size: int
    sector_size: int


def parse_cow_header(data: bytes) -> CowHeader:
    """Return a file's header.

    Args:
        data: The file's first :data:`MAX_HEADER` bytes, fewer where it ends before.

    Raises:
        RemoteProtocolError: It is no COW file, or one that a kernel cannot use: with a sector size of 0 it
            divides by that, and dies.
    """
    if len(data) < _START_BE.size:
        raise TruncatedMessage(_START_BE.size, len(data))
    alignment = 1
    if _START_LE.unpack_from(data) == (_MAGIC, 1):
        version = 1
        backing, mtime, size, sector_size = _V1.unpack(_whole(data, _V1))
    else:
        magic, version = _START_BE.unpack_from(data)
        if magic != _MAGIC:
            raise BadMagic(magic)
        if version == 2:
            backing, mtime, size, sector_size = _V2.unpack(_whole(data, _V2))
        elif version == 3:
            layout = _V3 if data[_V3_PATH : _V3_PATH + 4] != bytes(4) else _BROKEN_V3
            mtime, size, sector_size, alignment, _, backing = layout.unpack(_whole(data, layout))
        else:
            raise UnsupportedVersion(version)
    if not sector_size or not alignment:
        raise RemoteProtocolError("a COW file with sectors or an alignment of no bytes")
    return CowHeader(version, backing.partition(b"\0")[0], mtime, size, sector_size)


def _whole(data: bytes, layout: struct.Struct) -> bytes:
    if len(data) < layout.size:
        raise TruncatedMessage(layout.size, len(data))
    return data[: layout.size]
