"""What a capture is to hold and to count, computed from one that keeps every frame whole."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from support.pcapng_blocks import Packet
from umlab.engine.contract import CaptureCount, CaptureOrder
from umlab.switch.bpf import run
from umlab.wire.pcapng import serialize_packet


@dataclass
class _Tally:
    seen: int = 0
    accepted: int = 0
    lost: int = 0
    unsaid: int = 0


@dataclass
class ModelCapture:
    """A capture, block by block.

    Attributes:
        order: What it is told to keep.
        numbers: The port numbers in the order of its interfaces.
    """

    order: CaptureOrder
    numbers: list[int]
    _blocks: deque[bytes] = field(default_factory=deque)
    _used: int = 0
    _tallies: dict[int, _Tally] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tallies = {number: _Tally() for number in self.numbers}

    def note(self, port_no: int, packet: Packet) -> None:
        """Take a frame, of which the whole is given."""
        tally = self._tallies.get(port_no)
        if tally is None:
            return
        tally.seen += 1
        order = self.order
        asked = order.snap_length if order.program is None else run(order.program, packet.data)
        if asked == 0:
            return
        tally.accepted += 1
        block = serialize_packet(
            self.numbers.index(port_no),
            packet.at_ns + order.epoch_offset_ns,
            packet.data[: min(asked, order.snap_length)],
            packet.length,
            packet.direction,
            packet.comment.removeprefix("drop: "),
            tally.unsaid,
        )
        while order.overwrite and self._used + len(block) > order.capacity:
            self._take()
        if self._used + len(block) > order.capacity:
            tally.lost += 1
            tally.unsaid += 1
            return
        tally.unsaid = 0
        self._blocks.append(block)
        self._used += len(block)

    def read(self, most: int) -> bytes:
        """Return and forget what a read returns."""
        data = b""
        while self._blocks and (not data or len(data) + len(self._blocks[0]) <= most):
            data += self._take()
        return data

    def copy(self) -> bytes:
        """Return what is held."""
        return b"".join(self._blocks)

    def counts(self) -> dict[int, CaptureCount]:
        """Return what is counted."""
        return {
            number: CaptureCount(tally.seen, tally.accepted, tally.lost)
            for number, tally in self._tallies.items()
        }

    def _take(self) -> bytes:
        block = self._blocks.popleft()
        self._used -= len(block)
        return block
