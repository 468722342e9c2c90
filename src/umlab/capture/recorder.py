"""The flight recorder: a switch's newest frames, always, and what is asked for of them later."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, replace

from umlab._clock import Clock
from umlab.capture.block import count_packets, packets, serialize
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.capture.section import Section, Subject
from umlab.engine.contract import CaptureCount, CaptureOrder, Engine
from umlab.switch.bpf import Program, run

#: Bytes of each frame that are kept: the headers of whatever is in it, and short messages whole.  To copy all
#: of each frame, always, would cost a switch more than a twentieth of its speed.
SNAP_LENGTH = 512


@dataclass(frozen=True, slots=True)
class Saved:
    """What was asked for of a recorder.

    Attributes:
        data: A whole section of pcapng.
        report: How much it is.
    """

    data: bytes
    report: CaptureProgress


class FlightRecorder:
    """Keeps the newest frames of all ports of a switch, ``SNAP_LENGTH`` bytes of each, until ``close``.

    Args:
        engine: The switch, started.
        capacity: Bytes of memory.
        clock: The engine's.

    Attributes:
        capacity: Bytes of memory.

    Raises:
        MemoryError: There is no memory for it.
        SwitchError: There is no descriptor left for it.
        StateError: The engine does not run, or has as many captures as it may.
    """

    def __init__(self, engine: Engine, capacity: int, clock: Clock) -> None:
        self.capacity = capacity
        self._clock = clock
        self._offset_ns = time.time_ns() - clock.now_ns()
        self._begun_ns = self.epoch_ns()
        self._capture = engine.capture(
            CaptureOrder(
                snap_length=SNAP_LENGTH,
                capacity=capacity,
                overwrite=True,
                epoch_offset_ns=self._offset_ns,
            )
        )

    def epoch_ns(self) -> int:
        """Return the time by the clock that its packets have, nanoseconds since 1970."""
        return self._clock.now_ns() + self._offset_ns

    def blocks(self) -> bytes:
        """Return the packet blocks that it holds, oldest first."""
        return self._capture.copy()

    def close(self) -> None:
        """Keep no more.  A second call does nothing."""
        self._capture.close()

    def save(self, request: CaptureRequest, program: Program | None, subject: Subject) -> Saved:
        """Return what was asked for; takes a while, and may be called in any thread.

        Args:
            request: Has ``last``.
            program: Its filter's.
            subject: What is captured.
        """
        assert request.last is not None
        now_ns = self.epoch_ns()
        since_ns = now_ns - int(request.last * 1e9)
        accepted = sum(count.accepted for count in self._capture.counts().values())
        blocks = self.blocks()
        # Asked for after the blocks: every port that they name is among them.
        ports = self._capture.interfaces()
        oldest_ns = next((packet.at_ns for packet in packets(blocks)), now_ns)
        # Unless all is held that ever was, what is older has made room.
        is_whole = count_packets(blocks).total() >= accepted
        reach_ns = max(since_ns, self._begun_ns if is_whole else oldest_ns)
        kept_length = min(request.snap_length, SNAP_LENGTH)
        section = Section(replace(subject, snap_length=kept_length), reach_ns)
        asked = sorted(set(request.ports or ()))
        pieces = [section.header(), *section.describe(asked)]
        seen: Counter[int] = Counter()
        kept: Counter[int] = Counter()
        number_of = {port_no: number for number, port_no in enumerate(asked)}
        for packet in packets(blocks):
            port_no = ports[packet.interface]
            if packet.at_ns < since_ns or (request.ports is not None and port_no not in number_of):
                continue
            seen[port_no] += 1
            if port_no not in number_of:
                number_of[port_no] = len(number_of)
                pieces += section.describe([*section.ports, port_no])
            size = request.snap_length
            if program is not None:
                size = min(size, run(program, packet.data, packet.length))
            if size:
                kept[port_no] += 1
                cut = packet._replace(interface=number_of[port_no], data=packet.data[:size])
                pieces.append(serialize(cut))
        pieces += [
            section.statistics(number, CaptureCount(seen[port_no], kept[port_no]))
            for port_no, number in number_of.items()
        ]
        data = b"".join(pieces)
        report = CaptureProgress(
            "ended",
            seen=seen.total(),
            frames=kept.total(),
            bytes=len(data),
            reason="saved",
            covered=max(now_ns - reach_ns, 0) / 1e9,
        )
        return Saved(data, report)
