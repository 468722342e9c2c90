"""pcapng: the blocks that umlab writes, bytes only.

Every block is type u32, total length u32, a body padded to 4 bytes, total length u32 again.  We write
little-endian blocks, and times in nanoseconds since 1970.

Source: draft-ietf-opsawg-pcapng (4.1 to 4.6); option codes as registered there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

#: The link type of Ethernet frames without FCS (LINKTYPE_ETHERNET).
LINKTYPE_ETHERNET = 1
#: Values of ``direction``: from the guest into the switch, and out of the switch to the guest.
INBOUND, OUTBOUND = 1, 2

_SECTION, _INTERFACE, _STATISTICS, _PACKET = 0x0A0D0D0A, 1, 5, 6
_MAGIC = 0x1A2B3C4D
_ANY_LENGTH = 0xFFFF_FFFF_FFFF_FFFF
# Options: any block; section; interface; packet; statistics.
_END, _COMMENT = 0, 1
_SHB_OS, _SHB_USERAPPL = 3, 4
_IF_NAME, _IF_DESCRIPTION, _IF_FILTER, _IF_TSRESOL = 2, 3, 11, 9
_EPB_FLAGS, _EPB_DROPCOUNT = 2, 4
_ISB_STARTTIME, _ISB_ENDTIME, _ISB_IFRECV, _ISB_IFDROP, _ISB_FILTERACCEPT, _ISB_USRDELIV = 2, 3, 4, 5, 6, 8
_NANOSECONDS = b"\x09"
#: Bytes of the longest text of an option, whose length is a u16.
_MAX_TEXT = 65_000

_HEAD = struct.Struct("<II")
_TAIL = struct.Struct("<I")
_OPTION = struct.Struct("<HH")
_PACKET_HEAD = struct.Struct("<IIIII")


def serialize_section(application: str, system: str = "") -> bytes:
    """Return a Section Header Block, which begins a file.

    Args:
        application: Who writes it.
        system: The operating system; left out if empty.
    """
    options = [(_SHB_USERAPPL, _text(application))]
    if system:
        options.insert(0, (_SHB_OS, _text(system)))
    return _block(_SECTION, struct.pack("<IHHQ", _MAGIC, 1, 0, _ANY_LENGTH), options)


def serialize_interface(name: str, description: str, snap_length: int, capture_filter: str = "") -> bytes:
    """Return an Interface Description Block of an Ethernet port, with times in nanoseconds."""
    options = [(_IF_NAME, _text(name))]
    if description:
        options.append((_IF_DESCRIPTION, _text(description)))
    options.append((_IF_TSRESOL, _NANOSECONDS))
    if capture_filter:
        # 0: a filter in libpcap's language.
        options.append((_IF_FILTER, b"\0" + _text(capture_filter)))
    return _block(_INTERFACE, struct.pack("<HHI", LINKTYPE_ETHERNET, 0, snap_length), options)


def serialize_packet(
    interface: int,
    at_ns: int,
    data: bytes,
    length: int,
    direction: int,
    drop: str = "",
    lost: int = 0,
) -> bytes:
    """Return an Enhanced Packet Block.

    Args:
        interface: The place of its Interface Description Block, from 0.
        at_ns: Nanoseconds since 1970.
        data: The frame's first bytes, as many as are kept.
        length: Bytes of the whole frame.
        direction: ``INBOUND`` or ``OUTBOUND``.
        drop: Why the switch has dropped it, the comment ``drop: REASON``; empty if it has not.
        lost: Frames of this interface that were to be kept since the last block, and were not.

    Options come in this order, each only if it says something: comment, flags, drop count.
    """
    head = _PACKET_HEAD.pack(interface, at_ns >> 32, at_ns & 0xFFFF_FFFF, len(data), length)
    options = [(_COMMENT, b"drop: " + drop.encode())] if drop else []
    options.append((_EPB_FLAGS, struct.pack("<I", direction)))
    if lost:
        options.append((_EPB_DROPCOUNT, struct.pack("<Q", lost)))
    return _block(_PACKET, head + _padded(data), options)


def serialize_statistics(
    interface: int, at_ns: int, started_ns: int, received: int, accepted: int, lost: int
) -> bytes:
    """Return an Interface Statistics Block; all of them have the same size.

    Args:
        interface: The place of its Interface Description Block.
        at_ns: Now, nanoseconds since 1970.
        started_ns: When the capture began.
        received: Frames seen.
        accepted: Frames that were to be kept.
        lost: Those of them that were not.
    """
    options = [
        (_ISB_STARTTIME, _time(started_ns)),
        (_ISB_ENDTIME, _time(at_ns)),
        (_ISB_IFRECV, struct.pack("<Q", received)),
        (_ISB_IFDROP, struct.pack("<Q", lost)),
        (_ISB_FILTERACCEPT, struct.pack("<Q", accepted)),
        (_ISB_USRDELIV, struct.pack("<Q", accepted - lost)),
    ]
    return _block(_STATISTICS, struct.pack("<I", interface) + _time(at_ns), options)


def block_length(data: bytes, at: int = 0) -> int:
    """Return the bytes of one of our blocks that begins there."""
    return int.from_bytes(data[at + 4 : at + 8], "little")


def _block(kind: int, body: bytes, options: Iterable[tuple[int, bytes]]) -> bytes:
    parts = [body]
    for code, value in options:
        parts += (_OPTION.pack(code, len(value)), _padded(value))
    parts.append(_OPTION.pack(_END, 0))
    inner = b"".join(parts)
    size = _HEAD.size + len(inner) + _TAIL.size
    return _HEAD.pack(kind, size) + inner + _TAIL.pack(size)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _time(at_ns: int) -> bytes:
    return struct.pack("<II", at_ns >> 32, at_ns & 0xFFFF_FFFF)


def _text(text: str) -> bytes:
    """Return UTF-8 whatever the text, cut where it is too long, never within a character."""
    return text.encode(errors="replace")[:_MAX_TEXT].decode(errors="ignore").encode()
