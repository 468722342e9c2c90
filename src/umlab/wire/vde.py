"""The request of a VDE client for a port of a switch, versions 1 and 3.

A client connects to ``DIR/ctl``, sends one request that names its data socket, and reads one reply that
names the switch's: a bare sockaddr_un, as in :mod:`umlab.wire.daemon`.  Everything is in host byte order.

========  ==============================================================  ====================
version   fields, offset:size                                             then, to the end
========  ==============================================================  ====================
1         magic 0:4 = 0xfeedface, type 4:4, MAC 8:6, sockaddr_un 14:110   description, 0 to 128
3         magic 0:4, version 4:4 = 3, type 8:4, sockaddr_un 12:110        description, 0 to 128
========  ==============================================================  ====================

The low 8 bits of the type are 0; 1 asks for the port of the switch's own management, which umlab does not
have.  In v3 the other 24 bits are the number of the port that the client wants, 0 for any.  The description
is text and has no length of its own.

Source: VDE 2 documentation, exchanges of libvdeplug 4.0.1 with vde_switch 2.3.2; vector
``daemon_request_v3_vde``.
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
from umlab.wire.daemon import MAGIC, MAX_DESCRIPTION, NEW_PORT
from umlab.wire.sockaddr import AF_UNIX, SOCKADDR_SIZE, is_unnamed, parse_sockaddr, serialize_sockaddr

#: The highest number that a port may have.
MAX_PORT_NO = 65_535
#: Bytes of the longest request: v1 with the longest description.
MAX_VDE_REQUEST = 124 + MAX_DESCRIPTION

_V1 = struct.Struct("=II6x")
_V3 = struct.Struct("=III")
_WORD = struct.Struct("=I")
#: Bytes behind a v3 request that are the padding of a UML kernel's and no text.
_PADDING = 2


@dataclass(frozen=True, slots=True)
class VdeRequest:
    """A client's wish for a port.

    Attributes:
        version: 1 or 3.
        path: All 108 raw bytes of its data socket's name.
        port_no: The port that it wants, ``None`` for any; v1 cannot ask.
        description: What it says about itself, any bytes; empty behind a UML kernel's request.
    """

    version: int
    path: bytes
    port_no: int | None = None
    description: bytes = b""


def parse_vde_request(data: bytes) -> VdeRequest:
    """Decode one request read from a switch's control stream; the module shows the layout.

    Raises:
        TruncatedMessage: Fewer bytes than the version requires; ``needed`` says how many in total.
        BadMagic: The first word is not the magic.
        UnsupportedVersion: Version 2, or above 3.
        UnsupportedType: Another type than 0.
        OversizeMessage: A description of more than 128 bytes.
        RemoteProtocolError: A port number above 65535, a socket name that is empty or of another family.
    """
    header = _header_of(data)
    size = header.size + SOCKADDR_SIZE
    if len(data) < size:
        raise TruncatedMessage(size, len(data))
    if len(data) > size + MAX_DESCRIPTION:
        raise OversizeMessage(len(data), size + MAX_DESCRIPTION)
    version = 3 if header is _V3 else 1
    kind = header.unpack_from(data)[-1]
    if kind & 0xFF != NEW_PORT:
        raise UnsupportedType(kind & 0xFF)
    port_no = kind >> 8
    if port_no > MAX_PORT_NO:
        raise RemoteProtocolError(f"port {port_no} is out of range, the last is {MAX_PORT_NO}")
    family, path = parse_sockaddr(data[header.size : size])
    if family != AF_UNIX:
        raise RemoteProtocolError(f"a data socket of family {family}, not AF_UNIX")
    if is_unnamed(path):
        raise RemoteProtocolError("a data socket without a name")
    description = data[size:]
    if version == 3 and len(description) <= _PADDING:
        description = b""
    return VdeRequest(version, path, port_no or None, description)


def serialize_vde_request(request: VdeRequest) -> bytes:
    """Build a request as VDE's library sends it."""
    if request.version == 1:
        assert request.port_no is None
        header = _V1.pack(MAGIC, NEW_PORT)
    else:
        header = _V3.pack(MAGIC, 3, NEW_PORT | (request.port_no or 0) << 8)
    return header + serialize_sockaddr(request.path) + request.description


def _header_of(data: bytes) -> struct.Struct:
    """Return the layout of what comes before the address."""
    if len(data) < 4:
        raise TruncatedMessage(4, len(data))
    (magic,) = _WORD.unpack_from(data)
    if magic != MAGIC:
        raise BadMagic(magic)
    if len(data) < 8:
        raise TruncatedMessage(8, len(data))
    (second,) = _WORD.unpack_from(data, 4)
    if second == 3:
        return _V3
    if second == 0:
        return _V1
    if second == 1:
        # Neither a version nor a type that v1 has here: its second word is its type.
        raise UnsupportedType(second)
    raise UnsupportedVersion(second)
