"""The header that lies in front of an Ethernet frame in a GRE message; all is big-endian.

=================================================  =====  =============================
part                                               bytes  there
=================================================  =====  =============================
flags: 0x2000 with a key, 0x1000 with a sequence   2      always
0x6558: the payload is an Ethernet frame           2      always
key                                                4      where its flag is set
sequence number                                    4      where its flag is set
=================================================  =====  =============================

The sequence number is what an engine writes, and nobody reads it.

Source: RFC 2784 and RFC 2890; Linux arch/um/drivers/vector_transports.c.
"""

from __future__ import annotations

import struct

IP_PROTOCOL = 47
#: Bytes of a sequence number.
SEQUENCE_SIZE = 4

_KEY, _SEQUENCE = 0x2000, 0x1000
_ETHERNET = 0x6558
_FRONT = struct.Struct("!HH")
_NUMBER = struct.Struct("!I")


def serialize_header(key: int | None, *, sequence: bool) -> bytes:
    """Build a header up to where its sequence number comes.

    Args:
        key: 0 to 2**32 - 1, ``None`` for no key.
        sequence: Whether a sequence number follows.
    """
    flags = (0 if key is None else _KEY) | (_SEQUENCE if sequence else 0)
    return _FRONT.pack(flags, _ETHERNET) + (b"" if key is None else _NUMBER.pack(key))
