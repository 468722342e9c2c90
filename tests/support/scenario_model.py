"""What the pure core, with the sockets and queues around it, makes of a scenario."""

from __future__ import annotations

from dataclasses import dataclass, field

from support.guest_end import unread_limit
from support.scenario import (
    LIMITED,
    WITH_END,
    Attach,
    Configure,
    Detach,
    Die,
    Flush,
    Garble,
    Handover,
    Look,
    Resume,
    Send,
    Step,
    Stop,
    Stranger,
)
from umlab._clock import ManualClock
from umlab.engine.contract import SwitchSnapshot
from umlab.switch.core import SwitchCore
from umlab.switch.counters import DropReason
from umlab.switch.events import Event
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SwitchConfig


@dataclass
class Observation:
    """What can be seen of a step.

    Attributes:
        snapshot: After it, before the guests read.
        received: What each guest that reads then gets.
        events, fdb: What a ``Look`` saw.
    """

    snapshot: SwitchSnapshot
    received: dict[int, list[bytes]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    fdb: list[FdbEntry] = field(default_factory=list)


@dataclass
class _Wire:
    """A port's way to its guest.

    Attributes:
        unread: Frames in the guest's socket.
        queue: Frames in the engine's queue.
        down: Whether the engine knows that the guest is gone.
    """

    way: str
    unread: list[bytes] = field(default_factory=list)
    queue: list[bytes] = field(default_factory=list)
    stopped: bool = False
    dead: bool = False
    down: bool = False


class ModelSwitch:
    """The core, its wires and a clock.

    Args:
        config: What the switch is told to be.
    """

    def __init__(self, config: SwitchConfig) -> None:
        self._core, self._clock = SwitchCore(config), ManualClock()
        self._wires: dict[int, _Wire] = {}
        self._limit = unread_limit()

    def run(self, steps: list[Step]) -> list[Observation]:
        """Run a scenario; one more observation than there are steps, the last one a ``Look``."""
        return [self._observe(step) for step in (*steps, Look())]

    def _observe(self, step: Step) -> Observation:
        self._take(step)
        seen = Observation(self._snapshot())
        if isinstance(step, Look):
            seen.events, seen.fdb = self._core.take_events(), self._core.fdb(self._clock.now_ns())
        for port_no, wire in self._wires.items():
            if (wire.unread or wire.queue) and not wire.stopped:
                seen.received[port_no] = self._read(port_no, wire)
        return seen

    def _take(self, step: Step) -> None:
        core, now_ns = self._core, self._clock.now_ns()
        match step:
            case Attach(way, port_no):
                self._wires[core.add_port(now_ns, port_no, monitor=way == "monitor")] = _Wire(way)
            case Detach(port_no):
                del self._wires[port_no]
                core.remove_port(port_no, now_ns)
            case Die(port_no):
                self._die(port_no)
            case Send(port_no, frames, span_ns):
                self._clock.advance(span_ns)
                for frame in frames:
                    self._send(port_no, frame)
            case Configure(config, send):
                core.configure(config)
                self._take(send)
            case Flush(flushed):
                core.flush(flushed)
            case Handover():
                entries = core.fdb(now_ns)
                core.flush()
                core.restore(entries, now_ns)
            case Stop(port_no):
                self._wires[port_no].stopped = True
            case Resume(port_no):
                self._wires[port_no].stopped = False
            case Stranger():
                core.counters.unknown_sender += 1
            case Garble(port_no):
                core.port_counters(port_no).count_drop(DropReason.BAD_HEADER)

    def _send(self, port_no: int, frame: bytes) -> None:
        for egress in self._core.receive(port_no, frame, self._clock.now_ns()).egress:
            wire, counters = self._wires[egress], self._core.port_counters(egress)
            if wire.dead:
                self._refuse(egress, wire)
            elif wire.way in LIMITED and len(wire.unread) >= self._limit:
                if len(wire.queue) >= self._core.config.egress_queue_depth:
                    counters.count_drop(DropReason.TAIL)
                else:
                    wire.queue.append(frame)
            else:
                wire.unread.append(frame)
                counters.tx_frames += 1
                counters.tx_bytes += len(frame)

    def _refuse(self, port_no: int, wire: _Wire) -> None:
        self._core.port_counters(port_no).count_drop(DropReason.PEER_GONE)
        # A shared port is read elsewhere, where its guest may well send from another socket, and a monitor
        # is not read at all.
        wire.down = wire.way not in ("shared", "monitor")

    def _die(self, port_no: int) -> None:
        wire = self._wires[port_no]
        wire.dead, wire.stopped = True, False
        wire.unread.clear()
        if wire.way in WITH_END:
            wire.down = True
            self._core.link_closed(port_no, 0, self._clock.now_ns())
        for _ in wire.queue:
            self._refuse(port_no, wire)
        wire.queue.clear()

    def _read(self, port_no: int, wire: _Wire) -> list[bytes]:
        counters = self._core.port_counters(port_no)
        counters.tx_frames += len(wire.queue)
        counters.tx_bytes += sum(map(len, wire.queue))
        frames = wire.unread + wire.queue
        wire.unread, wire.queue = [], []
        return frames

    def _snapshot(self) -> SwitchSnapshot:
        core = self._core
        return SwitchSnapshot(
            at_ns=self._clock.now_ns(),
            counters=core.counters.copy(),
            ports={number: core.port_counters(number).copy() for number in core.ports()},
            queued={number: len(self._wires[number].queue) for number in core.ports()},
            down=frozenset(number for number, wire in self._wires.items() if wire.down),
            fdb_entries=core.fdb_size(),
        )
