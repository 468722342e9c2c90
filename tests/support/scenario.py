"""Random switch scenarios: made from a seed, run by the pure core or by an engine over real sockets.

Both runs give an ``Outcome``, and equal scenarios must give equal ones.  Time stands still but for the
steps that advance it, and each such step sends a frame at once, so that it does not matter whether an
engine forgets aged stations by its timer or on that frame.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field, replace

from support.deadline import deadline
from support.guest_end import BROADCAST, GuestEnd, mac, plug, plug_unconnected, traffic_of
from umlab._clock import ManualClock
from umlab.engine.contract import Engine
from umlab.switch.core import SwitchCore
from umlab.switch.counters import PortCounters, SwitchCounters
from umlab.switch.events import Event
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SECOND_NS, Framing, SwitchConfig

_ADDRESSES = [*(mac(number) for number in range(6)), BROADCAST, bytes.fromhex("0180c2000000")]
_WAYS = ("connected", "unconnected", "seqpacket", "device")
_MOST_PORTS = 6


@dataclass(frozen=True)
class Attach:
    """A guest attaches, one of ``_WAYS``."""

    way: str


@dataclass(frozen=True)
class Detach:
    """The control side drops a port."""

    port_no: int


@dataclass(frozen=True)
class Configure:
    """The control side tells the switch something else, which is no other ageing time."""

    config: SwitchConfig


@dataclass(frozen=True)
class Flush:
    """The control side forgets the addresses of a port, or all."""

    port_no: int | None


@dataclass(frozen=True)
class Handover:
    """What is known is taken away and given back, as from one engine to the next."""


@dataclass(frozen=True)
class Send:
    """Time advances, then a guest sends a frame."""

    port_no: int
    frame: bytes
    span_ns: int


Step = Attach | Detach | Send | Configure | Flush | Handover


@dataclass
class Outcome:
    """All that can be seen of a run.

    Attributes:
        egress: For each step, the frame's receivers with what they received.
    """

    egress: list[dict[int, bytes]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    counters: SwitchCounters = field(default_factory=SwitchCounters)
    ports: dict[int, PortCounters] = field(default_factory=dict)
    fdb: list[FdbEntry] = field(default_factory=list)


def make_scenario(seed: int, config: SwitchConfig, length: int) -> list[Step]:
    """Return the steps that belong to a seed; the same each time."""
    rng = random.Random(seed)
    ports: list[int] = []
    packet_ports: set[int] = set()
    steps: list[Step] = []
    while len(steps) < length:
        choice = rng.random()
        if len(ports) < 2 or (choice < 0.05 and len(ports) < _MOST_PORTS):
            port_no = next(n for n in range(1, _MOST_PORTS + 1) if n not in ports)
            ports.append(port_no)
            way = rng.choice(_WAYS)
            packet_ports.discard(port_no)
            if way in ("seqpacket", "device"):
                packet_ports.add(port_no)
            steps.append(Attach(way))
        elif choice < 0.08:
            steps.append(Detach(ports.pop(rng.randrange(len(ports)))))
        elif choice < 0.10:
            config = replace(
                config,
                hub=rng.random() < 0.3,
                fdb_capacity=rng.choice([2, 3, 8]),
                max_frame=rng.choice([70, 1518]),
            )
            steps.append(Configure(config))
        elif choice < 0.12:
            steps.append(Flush(rng.choice([None, *ports])))
        elif choice < 0.14:
            steps.append(Handover())
        else:
            port_no = rng.choice(ports)
            # An empty message is the end of file to those.
            least = 1 if port_no in packet_ports else 0
            size = rng.choice([least, 13, 14, 60, 64, config.max_frame, config.max_frame + 1])
            head = rng.choice(_ADDRESSES) + rng.choice(_ADDRESSES) + b"\x88\xb5" + rng.randbytes(8)
            # A frame that is dropped for its size does not make an engine look at ages.
            sized_well = 14 <= size <= config.max_frame
            span = rng.choice([0, 0, 0, SECOND_NS, config.ageing_time_ns + 1]) if sized_well else 0
            steps.append(Send(port_no, head.ljust(size, b"\0")[:size], span))
    return steps


def run_on_core(steps: list[Step], config: SwitchConfig) -> Outcome:
    """Run a scenario on the pure core."""
    core, clock, outcome = SwitchCore(config), ManualClock(), Outcome()
    for step in steps:
        received: dict[int, bytes] = {}
        match step:
            case Attach():
                core.add_port(clock.now_ns())
            case Detach(port_no):
                core.remove_port(port_no, clock.now_ns())
            case Configure(changed):
                core.configure(changed)
            case Flush(flushed):
                core.flush(flushed)
            case Handover():
                entries = core.fdb(clock.now_ns())
                core.flush()
                core.restore(entries, clock.now_ns())
            case Send(port_no, frame, span_ns):
                clock.advance(span_ns)
                for egress in core.receive(port_no, frame, clock.now_ns()).egress:
                    received[egress] = frame
                    counters = core.port_counters(egress)
                    counters.tx_frames += 1
                    counters.tx_bytes += len(frame)
        outcome.egress.append(received)
    outcome.events = core.take_events()
    outcome.counters = core.counters
    outcome.ports = {port_no: core.port_counters(port_no) for port_no in core.ports()}
    outcome.fdb = core.fdb(clock.now_ns())
    return outcome


def run_on_engine(steps: list[Step], engine: Engine, clock: ManualClock, expected: Outcome) -> Outcome:
    """Run a scenario on a started engine that goes by ``clock``, and stop it.

    Args:
        steps: The scenario.
        engine: Where to run it.
        clock: The engine's.
        expected: What another run gave: tells which frames to wait for, so that each step is over
            before the next; what is received is compared by the caller.
    """
    outcome = Outcome()
    guests: dict[int, GuestEnd] = {}
    sent: dict[int, int] = {}
    try:
        for step, receivers in zip(steps, expected.egress, strict=True):
            match step:
                case Attach(way):
                    guest = _plug(engine, way)
                    guests[guest.port_no], sent[guest.port_no] = guest, 0
                case Detach(port_no):
                    engine.detach(port_no)
                    guests.pop(port_no).close()
                case Configure(changed):
                    engine.configure(changed)
                case Flush(flushed):
                    engine.flush_fdb(flushed)
                case Handover():
                    entries = engine.fdb()
                    engine.flush_fdb()
                    engine.restore_fdb(entries)
                case Send(port_no, frame, span_ns):
                    clock.advance(span_ns)
                    guests[port_no].send(frame)
                    sent[port_no] += 1
                    _await_traffic(engine, port_no, sent[port_no])
            outcome.egress.append({port_no: guests[port_no].receive() for port_no in receivers})
        snapshot = engine.snapshot()
        outcome.events, outcome.fdb = engine.take_events(), engine.fdb()
        outcome.counters, outcome.ports = snapshot.counters, snapshot.ports
        for guest in guests.values():
            assert guest.waiting() == [], "frames that nobody should have got"
    finally:
        engine.stop()
        for guest in guests.values():
            guest.close()
    return outcome


def _plug(engine: Engine, way: str) -> GuestEnd:
    if way == "unconnected":
        return plug_unconnected(engine)
    framings = {"connected": Framing.DATAGRAM, "seqpacket": Framing.SEQPACKET, "device": Framing.DEVICE}
    return plug(engine, framings[way])


def _await_traffic(engine: Engine, port_no: int, count: int) -> None:
    end = deadline(10)
    while traffic_of(engine, port_no) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"port {port_no} has not seen {count} frames")
        os.sched_yield()
