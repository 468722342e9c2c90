"""Raw unix socket addresses: the 110-byte ``struct sockaddr_un`` and what sockets take and return.

The path field is bytes and stays bytes.  UML binds its data sockets to abstract names of all 108
bytes, with whatever the kernel had in its memory behind the first twelve, and two such names differ
when any byte does.
"""

from __future__ import annotations

import struct

AF_UNIX = 1
#: Bytes of ``sun_path``.
PATH_SIZE = 108
#: Bytes of a pathname that fit with the NUL behind them.
MAX_SOCKET_PATH = PATH_SIZE - 1
#: Bytes of the whole structure.
SOCKADDR_SIZE = 2 + PATH_SIZE

_SOCKADDR = struct.Struct(f"=H{PATH_SIZE}s")


def pad_path(address: bytes | str) -> bytes:
    """Return the 108-byte path field for an address as Python's sockets return it.

    Sockets return an abstract name without the NULs at its end (and a pathname without any), so
    padding with NULs gives the name back that was bound with all 108 bytes.

    Raises:
        ValueError: It has more than 108 bytes.
    """
    raw = address.encode("utf-8", "surrogateescape") if isinstance(address, str) else bytes(address)
    if len(raw) > PATH_SIZE:
        raise ValueError(f"an address of {len(raw)} bytes, at most {PATH_SIZE} fit")
    return raw.ljust(PATH_SIZE, b"\0")


def socket_address(path: bytes) -> bytes:
    """Return what a socket call takes for a 108-byte path field.

    An abstract name keeps all 108 bytes; a pathname ends at its first NUL.

    Raises:
        ValueError: The field is empty, not 108 bytes long, or a pathname without an end.
    """
    if len(path) != PATH_SIZE:
        raise ValueError(f"a path field of {len(path)} bytes, it has {PATH_SIZE}")
    if is_unnamed(path):
        raise ValueError("an empty path field")
    if path[0] == 0:
        return path
    name = path.partition(b"\0")[0]
    if len(name) == PATH_SIZE:
        raise ValueError("a pathname without an end")
    return name


def is_unnamed(path: bytes) -> bool:
    """Say whether a path field names nothing: all NULs."""
    return not path.strip(b"\0")


def serialize_sockaddr(path: bytes) -> bytes:
    """Return the 110 bytes for a 108-byte path field: family u16 (host order), path 108.

    Source: Linux include/uapi/linux/un.h.
    """
    assert len(path) == PATH_SIZE
    return _SOCKADDR.pack(AF_UNIX, path)


def parse_sockaddr(data: bytes) -> tuple[int, bytes]:
    """Return the family and the path field of the first 110 bytes; the caller has checked the length."""
    family, path = _SOCKADDR.unpack_from(data)
    return int(family), bytes(path)


def printable(path: bytes) -> str:
    """Return a path field as text for a log: ``@`` for an abstract name, escaped, no NULs at the end."""
    shown = path.rstrip(b"\0")
    if not shown:
        return "(unnamed)"
    prefix, rest = ("@", shown[1:]) if path[0] == 0 else ("", shown.partition(b"\0")[0])
    return prefix + "".join(_shown(byte) for byte in rest)


def _shown(byte: int) -> str:
    plain = 0x20 < byte < 0x7F and byte != 0x5C
    return chr(byte) if plain else f"\\x{byte:02x}"
