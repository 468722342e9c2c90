"""The header that lies in front of an Ethernet frame in an L2TPv3 data message; all is big-endian.

==========================================  =============  =====================================
part                                        bytes          there
==========================================  =============  =====================================
0x00030000: a data message, version 3       4              over UDP only
session, the number that the receiver gave  4              always
cookie                                      4 or 8         where the two ends agreed on one
counter                                     4              where the two ends agreed on one
==========================================  =============  =====================================

Nothing in a message says which parts it has.  The counter is what an engine writes, and nobody reads it.

Source: RFC 3931, sections 4.1 and 4.6; Linux arch/um/drivers/vector_transports.c.
"""

from __future__ import annotations

import struct

from umlab.errors import RemoteProtocolError, TruncatedMessage, UnsupportedVersion

#: The protocol number of messages that come without UDP.
IP_PROTOCOL = 115
#: Bytes of a counter.
COUNTER_SIZE = 4
#: Bytes of the longest header over UDP, without its counter.
MAX_UDP_HEADER = 16

_VERSION = 3
_CONTROL = 1 << 15
_FRONT = struct.Struct("!HH")
_SESSION = struct.Struct("!I")


def serialize_header(session: int, cookie: bytes, *, udp: bool) -> bytes:
    """Build a header up to where its counter comes.

    Args:
        session: 0 to 2**32 - 1.
        cookie: Nothing, or 4 or 8 bytes.
        udp: Whether the message goes over UDP.
    """
    assert len(cookie) in (0, 4, 8)
    return (_FRONT.pack(_VERSION, 0) if udp else b"") + _SESSION.pack(session) + cookie


def parse_udp_header(data: bytes, cookie_size: int) -> tuple[int, bytes]:
    """Return session and cookie of a message that came over UDP.

    Args:
        data: The message, or as much of it as was read.
        cookie_size: 0, 4 or 8.

    Raises:
        TruncatedMessage: It ends within the header.
        UnsupportedVersion: Another version than 3.
        RemoteProtocolError: A control message, or reserved bits are set.
    """
    size = _FRONT.size + _SESSION.size + cookie_size
    if len(data) < size:
        raise TruncatedMessage(size, len(data))
    flags, reserved = _FRONT.unpack_from(data)
    if flags & _CONTROL:
        raise RemoteProtocolError("a control message")
    if flags & 0xF != _VERSION:
        raise UnsupportedVersion(flags & 0xF)
    if flags != _VERSION or reserved:
        raise RemoteProtocolError("reserved bits are set")
    (session,) = _SESSION.unpack_from(data, _FRONT.size)
    return session, data[_FRONT.size + _SESSION.size : size]
