"""What an engine's capture holds, in the terms of its ports."""

from __future__ import annotations

from support.deadline import wait_until
from support.pcapng_blocks import Packet, read_packets
from umlab.engine.contract import Capture

#: Directions: from the guest, and to it.
IN, OUT = 1, 2
#: More bytes than any capture has.
ALL = 1 << 30


def held(capture: Capture) -> list[Packet]:
    """Return the frames that a capture holds, oldest first."""
    return read_packets(capture.copy())


def shown(capture: Capture) -> list[tuple[int, int, str]]:
    """Return port number, direction and drop reason of each frame that a capture holds."""
    numbers = capture.interfaces()
    return [
        (numbers[packet.interface], packet.direction, packet.comment.removeprefix("drop: "))
        for packet in held(capture)
    ]


def number_of(packet: Packet) -> int:
    """Return the number that a test has put at the beginning of a frame's payload, 4 bytes."""
    return int.from_bytes(packet.data[14:18], "big")


def seen_until(capture: Capture, port_no: int, count: int) -> None:
    """Wait until a capture has seen so many frames of a port."""
    wait_until(lambda: capture.counts()[port_no].seen == count, 10, f"port {port_no} has {count} frames")
