"""COW files, which UML's block devices keep their changes in: header, bitmap, and where the data lies.

A file is a header, a bitmap with one bit for each sector of the backing file, and room for the whole of
that: a sector whose bit is set lies there, any other one in the backing file.

Source: Linux arch/um/drivers/cow_user.c, ubd_kern.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from umlab.errors import (
    BadMagic,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedMessage,
    UnsupportedVersion,
)

#: Bytes from the beginning of a file that hold any header.
MAX_HEADER = 4136
#: What kernels and ``uml_mkcow`` give a file: the bytes of a sector, and what bitmap and data are aligned to.
SECTOR_SIZE, ALIGNMENT = 512, 4096
_MAGIC = 0x4F4F4F4D
_START_LE, _START_BE = struct.Struct("<II"), struct.Struct(">II")
#: Versions 1 and 2: the backing file's path, then mtime, size and the size of a sector.
_V1, _V2 = struct.Struct("<8x256sIQI"), struct.Struct(">8x4096sIQI")
#: Version 3: mtime, size, the size of a sector, alignment, how the bitmap is kept, the path; and as some
#: old 64-bit programs wrote it.
_V3, _BROKEN_V3 = struct.Struct(">8xIQIII4096s"), struct.Struct(">8xI4xQIII4096s")
#: Where the path of a proper version 3 begins.
_V3_PATH = 32
#: A stretch of full bytes of a bitmap, or one that is neither full nor empty.
_SET_BYTES = re.compile(rb"\xff+|[^\0\xff]")


@dataclass(frozen=True, slots=True)
class CowHeader:
    """What a COW file says of itself.

    Attributes:
        version: 1 to 3.
        backing: The backing file's path, raw.
        mtime: When that was changed last, seconds since 1970; kernels cannot keep more than 32 bits.
        size: Its bytes.
        sector_size: Bytes that are kept together.
        alignment: What bitmap and data are aligned to; of versions 1 and 2 the size of a sector.
        broken: Whether a version 3 is laid out as some old 64-bit programs did.
    """

    version: int
    backing: bytes
    mtime: int
    size: int
    sector_size: int = SECTOR_SIZE
    alignment: int = ALIGNMENT
    broken: bool = False

    @property
    def sectors(self) -> int:
        """How many sectors the backing file has, a last one that is not whole included."""
        return -(-self.size // self.sector_size)

    @property
    def bitmap_offset(self) -> int:
        """Where the bitmap begins."""
        length = _layout(self.version, self.broken).size
        return length if self.version < 3 else _aligned(length, self.alignment)

    @property
    def bitmap_length(self) -> int:
        """Bytes of the bitmap, of versions 1 and 2 rounded down, so that the last sectors may have no bit."""
        return self.sectors // 8 if self.version < 3 else -(-self.sectors // 8)

    @property
    def data_offset(self) -> int:
        """Where the first sector lies, if it is changed."""
        alignment = self.sector_size if self.version < 3 else self.alignment
        return _aligned(self.bitmap_offset + self.bitmap_length, alignment)


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
    if _START_LE.unpack_from(data) == (_MAGIC, 1):
        version = 1
    else:
        magic, version = _START_BE.unpack_from(data)
        if magic != _MAGIC:
            raise BadMagic(magic)
        if version not in (2, 3):
            raise UnsupportedVersion(version)
    broken = version == 3 and data[_V3_PATH : _V3_PATH + 4] == bytes(4)
    layout = _layout(version, broken)
    if len(data) < layout.size:
        raise TruncatedMessage(layout.size, len(data))
    if version < 3:
        path, mtime, size, sector_size = layout.unpack_from(data)
        alignment = sector_size
    else:
        mtime, size, sector_size, alignment, _, path = layout.unpack_from(data)
    if not sector_size or not alignment:
        raise RemoteProtocolError("a COW file with sectors or an alignment of no bytes")
    backing, end, _ = path.partition(b"\0")
    if not end:
        raise RemoteProtocolError("a COW file whose path has no end")
    return CowHeader(version, backing, mtime, size, sector_size, alignment, broken)


def serialize_cow_header(header: CowHeader) -> bytes:
    """Return a header as it is written, of any version.

    Raises:
        LocalProtocolError: Its path is empty, too long or no path, or a number does not fit.
    """
    layout = _layout(header.version, header.broken)
    longest = (256 if header.version == 1 else 4096) - 1
    if not 0 < len(header.backing) <= longest or b"\0" in header.backing:
        raise LocalProtocolError(
            f"a COW file of version {header.version} cannot keep the backing file's path "
            f"({len(header.backing)} of at most {longest} bytes)"
        )
    start = (_START_LE if header.version == 1 else _START_BE).pack(_MAGIC, header.version)
    try:
        if header.version < 3:
            data = layout.pack(header.backing, header.mtime, header.size, header.sector_size)
        else:
            data = layout.pack(
                header.mtime, header.size, header.sector_size, header.alignment, 0, header.backing
            )
    except struct.error:
        raise LocalProtocolError(
            f"a COW file cannot keep the time {header.mtime} or the size {header.size}"
        ) from None
    return start + data[len(start) :]


def changed_sectors(bitmap: bytes, sectors: int) -> Iterator[tuple[int, int]]:
    """Yield each run of changed sectors: the number of its first one, and how many they are.

    Args:
        bitmap: The bitmap, as long as it is.
        sectors: How many sectors there are; bits behind the last one mean nothing.
    """
    first = end = 0
    for found in _SET_BYTES.finditer(bitmap):
        at = found.start() * 8
        if bitmap[found.start()] == 0xFF:
            runs: tuple[tuple[int, int], ...] = ((0, len(found[0]) * 8),)
        else:
            runs = _RUNS[bitmap[found.start()]]
        for begin, length in runs:
            if at + begin != end:
                if end > first:
                    yield first, end - first
                first = at + begin
            end = min(at + begin + length, sectors)
    if end > first:
        yield first, end - first


def _bit_runs(byte: int) -> tuple[tuple[int, int], ...]:
    """Return the runs of bits that are set in a byte, the lowest first."""
    return tuple((each.start(), len(each[0])) for each in re.finditer("1+", f"{byte:08b}"[::-1]))


_RUNS = tuple(map(_bit_runs, range(256)))


def _layout(version: int, broken: bool) -> struct.Struct:
    if version < 3:
        return _V1 if version == 1 else _V2
    return _BROKEN_V3 if broken else _V3


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
