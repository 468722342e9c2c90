"""What the pure core, with the sockets and queues around it, makes of a scenario."""

from __future__ import annotations

from collections import Counter
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
    Inject,
    Look,
    Resume,
    Send,
    Step,
    Stop,
    Stranger,
)
from umlab._clock import ManualClock
from umlab.engine.contract import SwitchSnapshot
from umlab.switch.core import Punt, SwitchCore
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
        events, punts, fdb: What a ``Look`` saw.
    """

    snapshot: SwitchSnapshot
    received: dict[int, list[bytes]] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    punts: list[Punt] = field(default_factory=list)
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

    Attributes:
        retagged: How often a frame was sent in another form than it came, by what became of its tag, and
            by the mode and way of the port.
    """

    def __init__(self, config: SwitchConfig) -> None:
        self.retagged: Counter[tuple[str, str, str]] = Counter()
        self._core, self._clock = SwitchCore(config), ManualClock()
        self._wires: dict[int, _Wire] = {}
        self._limit = unread_limit()

    def run(self, steps: list[Step]) -> list[Observation]:
        """Run a scenario; one more observation than there are steps, the last one a ``Look``."""
        return [self._observe(step) for step in (*steps, Look())]

    def _observe(self, step: Step) -> Observation:
        self._take(step)
        self._sweep()
        seen = Observation(self._snapshot())
        if isinstance(step, Look):
            seen.events, seen.punts = self._core.take_events(), self._core.take_punts()
            seen.fdb = self._core.fdb(self._clock.now_ns())
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
            case Inject(port_no, frame):
                self._transmit(port_no, frame)
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
        verdict = self._core.receive(port_no, frame, self._clock.now_ns())
        for egress in verdict.egress:
            form = verdict.changed.get(egress, frame)
            if form != frame:
                vlan = self._core.config.ports[egress].vlan
                assert vlan is not None
                self.retagged[_change(frame, form), vlan.mode, self._wires[egress].way] += 1
            self._transmit(egress, form)

    def _transmit(self, egress: int, frame: bytes) -> None:
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
            counters.count_tx(len(frame))

    def _sweep(self) -> None:
        """Do what the timer asks: not every frame makes an engine look at ages."""
        at_ns, now_ns = self._core.get_timer(), self._clock.now_ns()
        if at_ns is not None and at_ns <= now_ns:
            self._core.handle_timer(now_ns)

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
        for frame in wire.queue:
            counters.count_tx(len(frame))
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


def _change(frame: bytes, form: bytes) -> str:
    """Return what became of a frame's outer tag."""
    if len(form) != len(frame):
        return "put in" if len(form) > len(frame) else "taken out"
    return "VID" if form[12:14] == frame[12:14] else "TPID"
