"""What a file is, by the magic numbers near its beginning: a file system, an archive, another image format.

Source: file system headers in Linux (fs/ext4/ext4.h, fs/btrfs, fs/xfs, fs/squashfs, fs/erofs, fs/f2fs), RFC
1952, RFC 8878, the formats of xz and bzip2, POSIX.1-1988 (ustar), QEMU docs/interop/qcow2.txt.
"""

from __future__ import annotations

import struct

#: Bytes from the beginning of a file that tell everything that is known here.
HEAD_SIZE = 65_608
#: What compresses another file; and archives.
COMPRESSIONS = frozenset({"gzip", "xz", "zstd", "bzip2"})
#: Disk images in a format that only an emulator reads.
EMULATOR_IMAGES = frozenset({"qcow2", "vmdk", "vdi", "vhdx"})

#: Offset, magic bytes, what it is.
_MAGICS = (
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
    (0, b"BZh", "bzip2"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"OOOM", "cow"),
    (0, b"MOOO", "cow"),
    (257, b"ustar", "tar"),
    (0, b"XFSB", "xfs"),
    (0, b"hsqs", "squashfs"),
    (1024, b"\xe2\xe1\xf5\xe0", "erofs"),
    (1024, b"\x10\x20\xf5\xf2", "f2fs"),
    (65_600, b"_BHRfS_M", "btrfs"),
    (32_769, b"CD001", "iso9660"),
    # Behind the others, some of which leave room for it.
    (510, b"\x55\xaa", "partitions"),
)
#: Where ext2 to ext4 say how large their blocks are, 1024 bytes shifted by a number up to 6.
_EXT_SHIFT_AT, _EXT_SHIFT, _MAX_EXT_SHIFT = 1024 + 24, struct.Struct("<I"), 6
#: The magic number of ext2 to ext4, and the features that are the difference.
_EXT_MAGIC_AT, _EXT_MAGIC = 1024 + 56, b"\x53\xef"
_EXT_FEATURES_AT, _EXT_FEATURES = 1024 + 92, struct.Struct("<III")
_HAS_JOURNAL = 0x4
#: Incompatible features of ext2 and ext3 (file types, recovery, journal device, meta_bg), and the
#: read-only compatible ones (sparse superblocks, large files).
_EXT3_INCOMPATIBLE, _EXT3_READ_ONLY = 0x1E, 0x3


def file_kind(head: bytes) -> str:
    """Return what a file is: a word such as ``ext4``, ``xz``, ``tar``, ``qcow2``, or an empty one.

    Args:
        head: The file's first :data:`HEAD_SIZE` bytes, fewer where it ends before.
    """
    if head[_EXT_MAGIC_AT : _EXT_MAGIC_AT + 2] == _EXT_MAGIC:
        return _ext_kind(head)
    for offset, magic, kind in _MAGICS:
        if head[offset : offset + len(magic)] == magic:
            return kind
    return ""


def block_size(head: bytes) -> int | None:
    """Return how large the blocks of a file system are, ``None`` of others than ext2, ext3 and ext4.

    Args:
        head: The file's first :data:`HEAD_SIZE` bytes, fewer where it ends before.
    """
    if head[_EXT_MAGIC_AT : _EXT_MAGIC_AT + 2] != _EXT_MAGIC:
        return None
    (shift,) = _EXT_SHIFT.unpack_from(head, _EXT_SHIFT_AT)
    return 1024 << shift if shift <= _MAX_EXT_SHIFT else None


def _ext_kind(head: bytes) -> str:
    if len(head) < _EXT_FEATURES_AT + _EXT_FEATURES.size:
        return ""
    compatible, incompatible, read_only = _EXT_FEATURES.unpack_from(head, _EXT_FEATURES_AT)
    if incompatible & ~_EXT3_INCOMPATIBLE or read_only & ~_EXT3_READ_ONLY:
        return "ext4"
    return "ext3" if compatible & _HAS_JOURNAL else "ext2"
