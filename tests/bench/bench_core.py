"""The forwarding core alone, in memory, one thread: the native one and the Python one.

Run as ``python tests/bench/bench_core.py``.  A frame is classified, its source learnt, its destination looked
up, and it waits in a queue until its burst is done; no system call is made for it.  Seconds are those of the
thread's own processor time.
"""

from __future__ import annotations

import collections
import os
import random
import time
from itertools import cycle

from measure import command, machine, report
from measure.extension import load
from measure.rounds import Unable, compare
from measure.switch import separate

from umlab.switch.core import SwitchCore
from umlab.switch.model import SwitchConfig

#: Frames until the same addresses take turns again.
SEQUENCE = 65_536
#: As in a burst of the native engine.
BURST = 64
SIZE = 64
#: Name of the comparison, addresses in all, and what the title calls them.
STATIONS = (("core-1", 2, "1 address on each port"), ("core-20000", 20_000, "20,000 addresses"))

Conversations = tuple[list[bytes], list[bytes]]


def conversations(stations: int) -> Conversations:
    """Return destination and source of frames from either port, of random stations in random order."""
    rng = random.Random(stations)
    addresses = [
        b"\x02" + number.to_bytes(5, "big") for number in rng.sample(range(1 << 40), max(stations, 2))
    ]
    left, right = addresses[::2], addresses[1::2]

    def sequence(senders: list[bytes], receivers: list[bytes]) -> list[bytes]:
        return [
            receivers[rng.randrange(len(receivers))] + sender
            for sender, _ in zip(cycle(senders), range(SEQUENCE), strict=False)
        ]

    both = sequence(left, right), sequence(right, left)
    for each in both:
        rng.shuffle(each)
    return both


def native(both: Conversations, seconds: float) -> dict[str, float]:
    """Measure the native core."""
    try:
        core = load("_core")
    except ImportError as error:
        raise Unable(f"there is no native engine: {error}") from None
    return figures(core.forward(list(both), seconds, SIZE))


def python(both: Conversations, seconds: float) -> dict[str, float]:
    """Measure the Python core."""
    core = SwitchCore(SwitchConfig())
    ports = [core.add_port(0) for _ in both]
    frames = [[head.ljust(SIZE, b"\0") for head in each] for each in both]
    queues: dict[int, collections.deque[bytes]] = {port: collections.deque() for port in ports}

    def forward(at: int) -> None:
        for port, each in zip(ports, frames, strict=True):
            now_ns = time.monotonic_ns()
            for frame in each[at : at + BURST]:
                for egress in core.receive(port, frame, now_ns).egress:
                    queues[egress].append(frame)
            for queue in queues.values():
                queue.clear()

    for at in range(0, SEQUENCE, BURST):
        forward(at)
    core.take_events()
    start, at, done = time.thread_time(), 0, 0
    while (spent := time.thread_time() - start) < seconds:
        forward(at)
        at = (at + BURST) % SEQUENCE
        done += len(ports) * BURST
    return figures(done / spent)


def figures(rate: float) -> dict[str, float]:
    """Return what the table shows of a rate."""
    return {"rate": rate / 1e6, "time": 1e9 / rate}


def main() -> None:
    """Compare with few and many stations."""
    options = command.parser("Measure the forwarding core alone.").parse_args()
    facts = machine.facts()
    os.sched_setaffinity(0, separate()[0])
    seconds = 0.2 if options.quick else 1.0
    done = []
    for name, stations, what in (
        ("core-1", 2, "1 address on each port"),
        ("core-20000", 20_000, "20,000 addresses"),
    ):
        if options.only is None or options.only in name:
            both = conversations(stations)
            contenders = {
                "umlab py": lambda both=both: python(both, seconds),
                "umlab native": lambda both=both: native(both, seconds),
            }
            title = f"The forwarding core alone, unicast, {SIZE} bytes, {what}"
            units = {"rate": "million frames/s", "time": "ns a frame"}
            done.append(compare(name, title, units, contenders, options.rounds))
    report.write("core", facts, done)


if __name__ == "__main__":
    main()
