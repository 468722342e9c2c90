"""Captures of every engine: those of the Python engine, and what the frames of the widest make of them."""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from support.bpf_programs import random_program
from support.capture_model import ModelCapture
from support.capture_reading import IN
from support.engines import ENGINES
from support.pcapng_blocks import Packet, read_packets
from support.scenario import LIMITED, Profile, Step, make_scenario
from support.scenario_run import compare
from umlab._clock import Clock
from umlab.engine.contract import MIN_CAPTURE, Capture, CaptureOrder, Engine
from umlab.switch.bpf import parse_ddd
from umlab.switch.events import Event
from umlab.switch.model import SECOND_NS, SwitchConfig

CountScenario = Callable[[str], None]

PROFILES = {
    "tags": Profile(
        SwitchConfig(ageing_time_ns=5 * SECOND_NS, max_frame=1518),
        most_frames=12,
        vlans=True,
        sizes=(15, 18, 1514),
    ),
    "buffers": Profile(
        SwitchConfig(max_frame=9018),
        most_frames=4,
        max_frames=(14, 2048, 9018, 65_535),
        sizes=(60, *range(2040, 2054), 9018),
        vlans=True,
    ),
    "queues": Profile(
        SwitchConfig(egress_queue_depth=2, max_frame=2100),
        ways=LIMITED,
        most_frames=30,
        max_frames=(1518, 2100),
        depths=(1, 2, 8),
        stops=True,
    ),
    "leaving": Profile(SwitchConfig(max_frame=1518), least_ports=4, most_frames=20, stations=4),
}
SEEDS = range(4)
LENGTH = 120
WIDEST = CaptureOrder(capacity=256 << 20)
TO_GROUPS = parse_ddd("4\n48 0 0 0\n69 0 1 1\n6 0 0 33\n6 0 0 0")
TAGGED = parse_ddd("4\n40 0 0 12\n21 0 1 33024\n6 0 0 65535\n6 0 0 0")
#: So much is read at once of those that are read meanwhile.
READ_SIZES = (1, 5000, 60_000, 1 << 20)


def orders_of(rng: random.Random) -> list[CaptureOrder]:
    """Return what is captured beside all: in short memory, parts of frames, some frames, some ports."""
    short = CaptureOrder(capacity=MIN_CAPTURE)
    return [
        short,
        replace(short, overwrite=True, epoch_offset_ns=(1 << 60) + 12345),
        CaptureOrder(snap_length=rng.randint(14, 70), program=random_program(rng)),
        replace(short, program=TO_GROUPS, overwrite=rng.random() < 0.5, snap_length=20),
        replace(short, program=TAGGED, ports=frozenset({1, 2, 4, 71})),
        replace(short, ports=frozenset({2, 3}), overwrite=True, capacity=MIN_CAPTURE + rng.randrange(99)),
    ]


@dataclass
class Taken:
    """A capture, what was done to it, and when: behind how many frames of all.

    Attributes:
        begun, ended: When it was opened, and closed.
        reads: When, how much was asked for, and what came.
    """

    order: CaptureOrder
    capture: Capture
    begun: int
    ended: int
    reads: list[tuple[int, int, bytes]]

    def check(self, packets: list[Packet], numbers: list[int]) -> ModelCapture:
        """Compare it with what all frames make of it."""
        model = ModelCapture(self.order, self.capture.interfaces())
        reads = deque(self.reads)
        for place in range(self.begun, self.ended + 1):
            while reads and reads[0][0] == place:
                _, most, data = reads.popleft()
                assert model.read(most) == data
            if place < self.ended:
                model.note(numbers[packets[place].interface], packets[place])
        assert not reads
        assert self.capture.copy() == model.copy()
        assert self.capture.counts() == model.counts()
        return model


class CapturedEngine:
    """An engine with captures from its start to its end, and one in between; some are read meanwhile."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self._engine = engine
        self._rng = random.Random(seed)
        self.all: Capture
        self.taken: list[Taken] = []
        #: What the counters counted of each port number.
        self.counted: Counter[int] = Counter()

    def __getattr__(self, name: str) -> object:
        return getattr(self._engine, name)

    def start(self, *, held: bool = False) -> None:
        self._engine.start(held=held)
        self.all = self._engine.capture(WIDEST)
        for order in orders_of(self._rng):
            self._open(order)

    def take_events(self) -> list[Event]:
        """Take the events, as between two steps of which the frames have all been dealt with."""
        now = self._frames()
        for taken in self.taken[:4]:
            if self._rng.random() < 0.3:
                most = self._rng.choice(READ_SIZES)
                taken.reads.append((now, most, taken.capture.read(most)))
        late = [taken for taken in self.taken if taken.begun]
        if not late and now:
            self._open(CaptureOrder(snap_length=64))
        elif late and late[0].ended < 0 and self._rng.random() < 0.2:
            late[0].ended = now
            late[0].capture.close()
        return self._engine.take_events()

    def detach(self, port_no: int) -> None:
        self._count(port_no)
        self._engine.detach(port_no)

    def stop(self) -> None:
        for port_no in self._engine.snapshot().ports:
            self._count(port_no)
        for taken in self.taken:
            taken.ended = self._frames() if taken.ended < 0 else taken.ended
        self._engine.stop()

    def _open(self, order: CaptureOrder) -> None:
        self.taken.append(Taken(order, self._engine.capture(order), self._frames(), -1, []))

    def _frames(self) -> int:
        return sum(count.seen for count in self.all.counts().values())

    def _count(self, port_no: int) -> None:
        counters = self._engine.snapshot().ports[port_no]
        self.counted[port_no] += counters.rx_frames + counters.tx_frames + sum(counters.drops.values())


def run(kind: str, config: SwitchConfig, steps: list[Step], seed: int) -> CapturedEngine:
    """Run a scenario on an engine with captures."""
    made: list[CapturedEngine] = []

    def make(config: SwitchConfig, clock: Clock | None) -> Engine:
        made.append(CapturedEngine(ENGINES[kind](config, clock), seed))
        return made[0]  # type: ignore[return-value]

    compare(make, config, steps, held=bool(seed % 2))
    return made[0]


def by_port(packets: list[Packet]) -> dict[tuple[int, int], list[Packet]]:
    """Return the frames of each interface and direction; when one left, the engine alone knows exactly."""
    found: dict[tuple[int, int], list[Packet]] = {}
    for packet in packets:
        shown = packet if packet.direction == IN else replace(packet, at_ns=0)
        found.setdefault((packet.interface, packet.direction), []).append(shown)
    return found


@pytest.mark.parametrize("kind", sorted(ENGINES))
@pytest.mark.parametrize("name", sorted(PROFILES))
def test_captures_are_those_of_the_python_engine_and_add_up(
    kind: str, name: str, count_scenario: CountScenario
) -> None:
    lost, overwritten, reasons = Counter[int](), 0, set()
    for seed in SEEDS:
        profile = PROFILES[name]
        steps = make_scenario(random.Random(f"{name} {seed}"), profile, LENGTH)
        engine = run(kind, profile.config, steps, seed)
        packets, numbers = read_packets(engine.all.copy()), engine.all.interfaces()
        assert {number: count.seen for number, count in engine.all.counts().items()} == {
            number: engine.counted[number] for number in numbers
        }
        assert len(packets) == engine.counted.total()
        for place, taken in enumerate(engine.taken):
            counts = taken.check(packets, numbers).counts().values()
            lost[place] += sum(count.lost for count in counts)
            kept = len(read_packets(taken.capture.copy()))
            overwritten += taken.order.overwrite and sum(count.accepted for count in counts) > kept
        reasons |= {packet.comment for packet in packets}
        if kind != "py":
            other = run("py", profile.config, steps, seed).all
            assert numbers == other.interfaces()
            assert by_port(packets) == by_port(read_packets(other.copy()))
        count_scenario(kind)
    assert lost[0], "memory was short"
    assert overwritten, "something was overwritten"
    assert {"", "drop: runt", "drop: oversize", "drop: peer_gone"} <= reasons
