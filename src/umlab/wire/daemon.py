"""The attach protocol of UML's ``daemon`` transport: requests v0, v1 and v3, and the reply.

A guest connects to a switch's control socket, sends one request that names its data socket, and (v1
and v3) reads one reply that names the switch's.  Everything is in host byte order.

========  ======================================================================  =====
version   fields, offset:size                                                     bytes
========  ======================================================================  =====
0         type 0:4, MAC 4:6, sockaddr_un 10:110                                   120
1         magic 0:4 = 0xfeedface, type 4:4, MAC 8:6, sockaddr_un 14:110           124
2         magic 0:4, version 4:4 = 2, ... (never in use; refused)                 --
3         magic 0:4, version 4:4 = 3, type 8:4, sockaddr_un 12:110, padding 122:2  122 or 124
========  ======================================================================  =====

A v3 request has two bytes of structure padding when it comes from the kernel, and none, or a text
instead, from VDE's library.  The reply is a bare sockaddr_un of 110 bytes.

The type is 0 for a new port.  Netkit's ``uml_dump`` sends type 1 in a v3 request: it has every frame of
the switch sent to its socket, and sends none.

Source: Linux arch/um/drivers/daemon_user.c, ``struct request_v3``; vectors ``daemon_*``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from umlab.errors import (
    BadMagic,
    OversizeMessage,
    RemoteProtocolError,
    TruncatedMessage,
    UnsupportedType,
    UnsupportedVersion,
)
from umlab.wire.sockaddr import AF_UNIX, SOCKADDR_SIZE, is_unnamed, parse_sockaddr, serialize_sockaddr

MAGIC = 0xFEEDFACE
#: The request types: a new port, and in v3 only, a copy of every frame.
NEW_PORT, NEW_DUMP = 0, 1
#: Bytes of a v3 request as the kernel sends it, its two bytes of padding included.
PADDED_V3 = 124
#: Bytes of a text that a VDE client appends.
MAX_DESCRIPTION = 128
#: Bytes of the longest request: v3 with such a text.
MAX_ATTACH_REQUEST = 122 + MAX_DESCRIPTION

_V0 = struct.Struct("=I6s")
_V1 = struct.Struct("=II6s")
_V3 = struct.Struct("=III")
_WORD = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class AttachRequest:
    """A guest's wish for a port, or a dump's for every frame.

    Attributes:
        version: 0, 1 or 3.
        path: All 108 raw bytes of its data socket's name; an abstract one begins with NUL and is not text.
        mac: 6 bytes that v0 and v1 carry and nobody uses; ``None`` in v3.
        dump: It wants every frame of the switch and sends none; v3 only.
    """

    version: int
    path: bytes
    mac: bytes | None = None
    dump: bool = False


def _request_size(data: bytes, *, v0: bool) -> int:
    """Return how many bytes the request that begins with ``data`` has at least."""
    if len(data) < 4:
        raise TruncatedMessage(4, len(data))
    (magic,) = _WORD.unpack_from(data)
    if magic != MAGIC:
        if v0:
            return _V0.size + SOCKADDR_SIZE
        raise BadMagic(magic)
    if len(data) < 8:
        raise TruncatedMessage(8, len(data))
    (second,) = _WORD.unpack_from(data, 4)
    if second == 0:
        return _V1.size + SOCKADDR_SIZE
    if second == 1:
        # Neither a version nor a type of v1: the second word of v1 is its type.
        raise UnsupportedType(second)
    if second != 3:
        raise UnsupportedVersion(second)
    return _V3.size + SOCKADDR_SIZE


def parse_attach_request(data: bytes, *, v0: bool = False) -> AttachRequest:
    """Decode one attach request read from a switch's control stream; the module shows the layout.

    Args:
        data: All bytes read so far.  Bytes behind a v3 request (padding, a VDE client's text) are not
            looked at.
        v0: Whether a first word other than the magic is a v0 request.

    Raises:
        TruncatedMessage: Fewer bytes than the version requires; ``needed`` says how many in total.
        BadMagic: The first word is not the magic and v0 is off.
        UnsupportedVersion: Version 2, or above 3.
        OversizeMessage: More bytes than the version's longest request (v3: ``MAX_ATTACH_REQUEST``).
        UnsupportedType: Another type than 0, or 1 in v3.
        RemoteProtocolError: A socket name that is empty or of another family.

    Source: Linux arch/um/drivers/daemon_user.c ``struct request_v3``; vectors ``daemon_*``.
    """
    size = _request_size(data, v0=v0)
    if len(data) < size:
        raise TruncatedMessage(size, len(data))
    (magic,) = _WORD.unpack_from(data)
    mac: bytes | None
    if magic != MAGIC:
        version, (kind, mac), header = 0, _V0.unpack_from(data), _V0.size
    elif (version := _WORD.unpack_from(data, 4)[0]) == 3:
        (_, _, kind), mac, header = _V3.unpack_from(data), None, _V3.size
    else:
        version, (_, kind, mac), header = 1, _V1.unpack_from(data), _V1.size
    limit = MAX_ATTACH_REQUEST if version == 3 else size
    if len(data) > limit:
        raise OversizeMessage(len(data), limit)
    if kind != NEW_PORT and (version, kind) != (3, NEW_DUMP):
        raise UnsupportedType(kind)
    family, path = parse_sockaddr(data[header : header + SOCKADDR_SIZE])
    if family != AF_UNIX:
        raise RemoteProtocolError(f"a data socket of family {family}, not AF_UNIX")
    if is_unnamed(path):
        raise RemoteProtocolError("a data socket without a name")
    return AttachRequest(version, path, mac, kind == NEW_DUMP)


def serialize_attach_request(request: AttachRequest) -> bytes:
    """Build a request as the guest's kernel sends it, v3 with its two bytes of padding."""
    address = serialize_sockaddr(request.path)
    mac = request.mac or bytes(6)
    if request.version == 0:
        return _V0.pack(NEW_PORT, mac) + address
    if request.version == 1:
        return _V1.pack(MAGIC, NEW_PORT, mac) + address
    assert request.version == 3
    return _V3.pack(MAGIC, 3, NEW_DUMP if request.dump else NEW_PORT) + address + bytes(2)


def parse_attach_reply(data: bytes) -> bytes:
    """Return the 108-byte path field of a reply.

    Raises:
        TruncatedMessage: Fewer than 110 bytes.
        OversizeMessage: More.
        RemoteProtocolError: Not an AF_UNIX address, or one without a name.
    """
    if len(data) < SOCKADDR_SIZE:
        raise TruncatedMessage(SOCKADDR_SIZE, len(data))
    if len(data) > SOCKADDR_SIZE:
        raise OversizeMessage(len(data), SOCKADDR_SIZE)
    family, path = parse_sockaddr(data)
    if family != AF_UNIX or is_unnamed(path):
        raise RemoteProtocolError("the reply names no unix socket")
    return path


def serialize_attach_reply(path: bytes) -> bytes:
    """Build the 110-byte reply that names a switch's data socket by its 108-byte path field."""
    return serialize_sockaddr(path)
