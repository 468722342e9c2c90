"""pcapng of a capture, read back: its ports, their frames and their counts."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from support.pcapng_blocks import INTERFACE, PACKET, SECTION, STATISTICS, Packet, read_blocks, read_packets

_IF_NAME, _IF_DESCRIPTION, _IF_FILTER = 2, 3, 11
_STARTTIME, _ENDTIME, _IFRECV, _IFDROP, _FILTERACCEPT, _USRDELIV = 2, 3, 4, 5, 6, 8


@dataclass
class Interface:
    """A port in a capture.

    Attributes:
        name: Such as ``lan:1``.
        description: What is plugged in.
        filter: The filter's text.
        snap_length: Bytes of a frame that are kept.
        packets: Its frames.
        statistics: Frames seen, accepted, lost and kept, as the file says; ``None`` where it does not.
    """

    name: str
    description: str
    filter: str
    snap_length: int
    packets: list[Packet] = field(default_factory=list)
    statistics: tuple[int, int, int, int] | None = None

    @property
    def lost(self) -> int:
        """Frames lost, as the file says."""
        assert self.statistics is not None, self.name
        return self.statistics[2]


def read_capture(data: bytes | Path) -> list[Interface]:
    """Return the ports of a capture; fails where it is no single whole section."""
    data = data.read_bytes() if isinstance(data, Path) else data
    found: list[Interface] = []
    for number, block in enumerate(read_blocks(data)):
        assert (block.kind == SECTION) == (number == 0)
        options = dict(block.options)
        if block.kind == INTERFACE:
            (snap_length,) = struct.unpack_from("<I", block.body, 4)
            found.append(
                Interface(
                    options[_IF_NAME].decode(),
                    options.get(_IF_DESCRIPTION, b"").decode(),
                    options.get(_IF_FILTER, b"\0")[1:].decode(),
                    snap_length,
                )
            )
        elif block.kind == STATISTICS:
            interface = found[struct.unpack_from("<I", block.body)[0]]
            codes = (_IFRECV, _FILTERACCEPT, _IFDROP, _USRDELIV)
            seen, accepted, lost, kept = (struct.unpack("<Q", options[code])[0] for code in codes)
            interface.statistics = seen, accepted, lost, kept
            assert _time(options[_STARTTIME]) <= _time(options[_ENDTIME])
        else:
            assert block.kind in (SECTION, PACKET)
    for packet in read_packets(data):
        found[packet.interface].packets.append(packet)
    return found


def check_counts(interfaces: list[Interface]) -> None:
    """Fail unless what the file says of its frames is so."""
    for each in interfaces:
        assert each.statistics is not None, each.name
        seen, accepted, lost, kept = each.statistics
        assert kept == len(each.packets), each.name
        assert accepted == kept + lost, each.name
        assert seen >= accepted, each.name


def _time(value: bytes) -> int:
    high, low = struct.unpack("<II", value)
    return int(high << 32 | low)
