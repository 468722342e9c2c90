"""Captures of several switches become one section."""

from __future__ import annotations

import pytest

from umlab.capture.merge import Merge
from umlab.errors import RemoteProtocolError
from umlab.wire.pcapng import (
    INBOUND,
    serialize_interface,
    serialize_packet,
    serialize_section,
    serialize_statistics,
)

SECTION = serialize_section("umlab")
WEB, DB, GATE = (serialize_interface(name, "", 65535) for name in ("lan:1", "lan:2", "wan:1"))


def packet(interface: int) -> bytes:
    """Return a packet of an interface."""
    return serialize_packet(interface, 7, b"\0" * 60, 60, INBOUND)


def test_interfaces_are_numbered_in_the_order_in_which_they_come() -> None:
    merge = Merge()
    written = merge.add(0, SECTION + WEB + packet(0))
    written += merge.add(1, SECTION + GATE + packet(0))
    written += merge.add(0, DB + packet(1) + packet(0))
    written += merge.add(1, serialize_statistics(0, 7, 6, 5, 4, 3))
    written += merge.add(0, b"")
    assert written == b"".join(
        [
            *(SECTION, WEB, packet(0), GATE, packet(1), DB, packet(2), packet(0)),
            serialize_statistics(1, 7, 6, 5, 4, 3),
        ]
    )


@pytest.mark.parametrize("blocks", [packet(0), WEB + packet(1), WEB[:-4], b"\0" * 8, b"\0" * 12])
def test_what_is_no_capture_is_an_error(blocks: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Merge().add(0, blocks)
