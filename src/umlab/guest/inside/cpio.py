"""The "newc" cpio archive, which the kernel unpacks as an initramfs: writer and reader.

Each member is a header of 110 ASCII bytes, ``070701`` and 13 fields of 8 hexadecimal digits (inode,
mode, uid, gid, nlink, mtime, size, device major and minor, special file's major and minor, size of the
name with its NUL, checksum 0), the name with a NUL, padding with NULs to 4 bytes, the content, padding
to 4 bytes.  The member ``TRAILER!!!`` ends the archive.

Device nodes are only entries: nobody needs root to make them.

Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst, init/initramfs.c.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from umlab.errors import BadMagic, LocalProtocolError, OversizeMessage, RemoteProtocolError, TruncatedMessage

_MAGIC = b"070701"
_HEADER_SIZE = 110
_TRAILER = "TRAILER!!!"
#: Bytes of a name with its NUL that the kernel takes (PATH_MAX).
MAX_NAME = 4096
_MAX_FIELD = 0xFFFFFFFF
_HEX = frozenset(b"0123456789abcdefABCDEF")


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive.

    Attributes:
        name: Path in the archive, relative, ``surrogateescape`` for bytes that are not UTF-8.
        mode: File type and permissions, as in ``st_mode``.
        data: A regular file's content, a symbolic link's target; empty for others.
        device: Major and minor number of a device node.
        uid: Owner.
        gid: Group.
        mtime: Seconds since 1970; 0 keeps archives equal for equal content.
    """

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)
    uid: int = 0
    gid: int = 0
    mtime: int = 0


def directory(name: str, permissions: int = 0o755) -> Member:
    """Return a directory."""
    return Member(name, stat.S_IFDIR | permissions)


def file(name: str, data: bytes, permissions: int = 0o644) -> Member:
    """Return a regular file."""
    return Member(name, stat.S_IFREG | permissions, data)


def symlink(name: str, target: str) -> Member:
    """Return a symbolic link."""
    return Member(name, stat.S_IFLNK | 0o777, target.encode("utf-8", "surrogateescape"))


def character_device(name: str, major: int, minor: int, permissions: int = 0o600) -> Member:
    """Return a character device node."""
    return Member(name, stat.S_IFCHR | permissions, device=(major, minor))


def serialize_archive(members: Iterable[Member]) -> bytes:
    """Build an archive; equal members give equal bytes.

    Raises:
        LocalProtocolError: A member's name is empty, longer than 4095 bytes, contains NUL or is the
            trailer's, or a number does not fit into 32 bits.
    """
    parts: list[bytes] = []
    # The kernel makes hard links of equal inode numbers, so each member has its own.
    for inode, member in enumerate(members, 1):
        parts.append(_serialize_member(member, inode))
    parts.append(_entry(_TRAILER.encode(), (0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0), b""))
    return b"".join(parts)


def parse_archive(data: bytes) -> Iterator[Member]:
    """Decode an archive; what follows the trailer is ignored.

    Hard links come as separate members as they stand in the archive.

    Raises:
        BadMagic: A header does not begin with ``070701``.
        TruncatedMessage: The archive ends inside a member, or without a trailer.
        OversizeMessage: A name is longer than the kernel takes.
        RemoteProtocolError: A field is not hexadecimal, or a name has no NUL at its end.
    """
    offset = 0
    while True:
        fields = _parse_header(data, offset)
        name_end = offset + _HEADER_SIZE + fields[11]
        start = _padded(name_end)
        end = start + fields[6]
        if len(data) < end:
            raise TruncatedMessage(end, len(data))
        name = data[offset + _HEADER_SIZE : name_end - 1]
        if data[name_end - 1 : name_end] != b"\0" or b"\0" in name:
            raise RemoteProtocolError("a member's name does not end where its header says")
        if name == _TRAILER.encode():
            return
        yield Member(
            name.decode("utf-8", "surrogateescape"),
            mode=fields[1],
            data=data[start:end],
            device=(fields[9], fields[10]),
            uid=fields[2],
            gid=fields[3],
            mtime=fields[5],
        )
        offset = _padded(end)


def _parse_header(data: bytes, offset: int) -> list[int]:
    header = data[offset : offset + _HEADER_SIZE]
    if header[:6] != _MAGIC[: len(header)]:
        raise BadMagic(int.from_bytes(header[:6], "big"))
    if len(header) < _HEADER_SIZE:
        raise TruncatedMessage(offset + _HEADER_SIZE, len(data))
    if not _HEX.issuperset(header[6:]):
        raise RemoteProtocolError("a header's field is not hexadecimal")
    fields = [int(header[at : at + 8], 16) for at in range(6, _HEADER_SIZE, 8)]
    if not 1 <= fields[11] <= MAX_NAME:
        raise OversizeMessage(fields[11], MAX_NAME)
    return fields


def _serialize_member(member: Member, inode: int) -> bytes:
    name = member.name.encode("utf-8", "surrogateescape")
    if not name or b"\0" in name or len(name) >= MAX_NAME or member.name == _TRAILER:
        raise LocalProtocolError(f"a cpio archive cannot hold the name {member.name[:64]!r}")
    links = 2 if stat.S_ISDIR(member.mode) else 1
    size = len(member.data)
    numbers = (inode, member.mode, member.uid, member.gid, links, member.mtime, size, 0, 0, *member.device)
    if not all(0 <= number <= _MAX_FIELD for number in numbers):
        raise LocalProtocolError(f"a number of member {member.name[:64]!r} does not fit into 32 bits")
    return _entry(name, numbers, member.data)


def _entry(name: bytes, numbers: tuple[int, ...], data: bytes) -> bytes:
    fields = "".join(f"{number:08x}" for number in (*numbers, len(name) + 1, 0))
    head = _MAGIC + fields.encode() + name + b"\0"
    return head + bytes(_padded(len(head)) - len(head)) + data + bytes(_padded(len(data)) - len(data))


def _padded(size: int) -> int:
    return (size + 3) & ~3
