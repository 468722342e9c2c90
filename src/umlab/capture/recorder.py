"""The flight recorder: a switch's newest frames, always, and what is asked for of them later."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from umlab._clock import Clock
from umlab.capture.block import packets, serialize
from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.capture.section import Section, Subject
from umlab.engine.contract import CaptureCount, CaptureOrder, Engine
from umlab.switch.bpf import Program, run


@dataclass(frozen=True, slots=True)
class Saved:
    """What was asked for of a recorder.

    Attributes:
        data: A whole section of pcapng, its blocks in turn.
        report: How much it is.
    """

    data: tuple[bytes, ...]
    report: CaptureProgress


class FlightRecorder:
    """Keeps the newest frames of all ports of a switch, from when it is made until ``close``.

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
            CaptureOrder(capacity=capacity, overwrite=True, epoch_offset_ns=self._offset_ns)
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
        wanted = set(ports if request.ports is None else request.ports)
        seen: Counter[int] = Counter()
        found = []
        held, oldest_ns = 0, now_ns
        for packet in packets(blocks):
            held += 1
            if held == 1:
                oldest_ns = packet.at_ns
            port_no = ports[packet.interface]
            if packet.at_ns < since_ns or port_no not in wanted:
                continue
            seen[port_no] += 1
            kept = request.snap_length
            if program is not None:
                kept = min(kept, run(program, packet.data, packet.length))
            if kept:
                found.append((port_no, packet._replace(data=packet.data[:kept])))
        # Unless all is held that ever was, what is older has made room.
        reach_ns = max(since_ns, self._begun_ns if held >= accepted else oldest_ns)
        kept_of = Counter(port_no for port_no, _ in found)
        shown = sorted(seen if request.ports is None else wanted)
        section = Section(subject, reach_ns)
        number_of = {port_no: number for number, port_no in enumerate(shown)}
        data = (
            section.header(),
            *section.describe(shown),
            *(serialize(packet._replace(interface=number_of[port_no])) for port_no, packet in found),
            *(
                section.statistics(number, CaptureCount(seen[port_no], kept_of[port_no]))
                for port_no, number in number_of.items()
            ),
        )
        report = CaptureProgress(
            "ended",
            seen=seen.total(),
            frames=len(found),
            bytes=sum(map(len, data)),
            reason="saved",
            covered=max(now_ns - reach_ns, 0) / 1e9,
        )
        return Saved(data, report)
