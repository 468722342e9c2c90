"""What VLANs, captures and a large change of settings cost: switches of a lab's daemon under a made load.

Run as ``python tests/bench/bench_vlan_capture.py``.  The switches are the native engine's, in one daemon, one
for each contender; the load (``_load.pyx``) has one processor, the daemon all the others.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from measure import command, machine, report
from measure.bed import Load
from measure.extension import load
from measure.lab import RunningLab, Segment, running_lab
from measure.rounds import Comparison, compare
from measure.switch import raise_descriptor_limit, separate

from umlab.capture.order import CaptureProgress, CaptureRequest
from umlab.engine.select import native_engine
from umlab.switch.model import Framing, Link, PortConfig, SwitchConfig
from umlab.switch.vlan import PortVlan, VidSet

SATURATION = {"rate": "frames/s", "cpu": "us of processor time a frame", "loss": "%"}
#: Of all frames that the ports have counted, those that are kept; how many more or fewer than counted were
#: kept or said to be lost.
CAPTURED = SATURATION | {"kept": "%", "wrong": "frames"}
APPLIED = {"time": "ms", "lost": "frames"}

RECORDER = 16 << 20
VID = 10
TAG = b"\x81\x00" + VID.to_bytes(2, "big")
ACCESS = PortVlan.access(VID)
TRUNK = PortVlan.trunk(VidSet.of([VID, 20, 30]))
#: The settings of the sender's port and of the receiver's.
VLANS: Mapping[str, tuple[PortVlan, PortVlan] | None] = {
    "no VLANs": None,
    "access ports of one VLAN": (ACCESS, ACCESS),
    "access to trunk, a tag is put in": (ACCESS, TRUNK),
    "trunk to access, the tag is taken out": (TRUNK, ACCESS),
    "trunk to trunk": (TRUNK, TRUNK),
}
PLAIN, RECORDED, CHANGED = "vlans-0", "recorded", "changed"
#: What is changed at once, and the pace and addresses of the traffic that is not concerned.
PORTS, MANY_VLANS, PACE, SOURCES = 1000, 4000, 10_000, 20_000

Figures = dict[str, float]
Measure = Callable[[], Figures]


def segment_of(title: str) -> str:
    """Return the name of the switch for some settings."""
    return f"vlans-{list(VLANS).index(title)}"


def segments() -> list[Segment]:
    """Return every switch that is needed."""
    found = []
    for title, pair in VLANS.items():
        ports = {} if pair is None else dict(enumerate(map(PortConfig, pair), 1))
        found.append(Segment(segment_of(title), SwitchConfig(ports=ports)))
    return [*found, Segment(RECORDED, recorder=RECORDER), Segment(CHANGED)]


def load_of(title: str, size: int) -> Load:
    """Return what is sent with some settings."""
    first, second = (b"" if vlan in (None, ACCESS) else TAG for vlan in VLANS[title] or (None, None))
    return Load(size, tags=(first, second))


def vlans(lab: RunningLab, size: int, seconds: float) -> dict[str, Measure]:
    """Return what measures forwarding with each kind of settings."""

    def once(title: str) -> Figures:
        with lab.bed(segment_of(title), load_of(title, size)) as at:
            return at.saturate(seconds)

    return {title: lambda title=title: once(title) for title in VLANS}


def captures(lab: RunningLab, size: int, seconds: float) -> dict[str, Measure]:
    """Return what measures forwarding while frames are kept."""
    path = lab.place / "frames.pcapng"

    def without(segment: str) -> Figures:
        with lab.bed(segment, Load(size)) as at:
            return at.saturate(seconds) | {"kept": 0.0, "wrong": 0.0}

    def into_a_file() -> Figures:
        try:
            figures, ended = captured(lab, CaptureRequest(PLAIN, file=str(path)), size, seconds)
            return figures | {"wrong": figures["wrong"] + abs(packets(path) - ended.frames)}
        finally:
            path.unlink(missing_ok=True)

    return {
        "no capture": lambda: without(PLAIN),
        "flight recorder": lambda: without(RECORDED),
        "every frame to a file": into_a_file,
        "to a reader that has stopped": lambda: captured(lab, CaptureRequest(PLAIN), size, seconds)[0],
    }


def captured(
    lab: RunningLab, request: CaptureRequest, size: int, seconds: float
) -> tuple[Figures, CaptureProgress]:
    """Measure while a capture goes on that nobody reads before the end; return its last report as well."""
    with lab.bed(PLAIN, Load(size)) as at, lab.client() as client, client.capture(request) as capture:
        next(capture)
        before = counted(lab)
        figures = at.saturate(seconds)
        total = counted(lab) - before
        capture.stop()
        ended = [item for item in capture if isinstance(item, CaptureProgress)][-1]
    kept = ended.frames / total * 100
    return figures | {"kept": kept, "wrong": float(abs(ended.frames + ended.lost - total))}, ended


def counted(lab: RunningLab) -> int:
    """Return how many frames the ports have counted, dropped ones included."""
    names = ("rx_frames", "tx_frames")
    with lab.client() as client:
        return sum(
            value
            for port in client.ports(PLAIN)
            for name, value in port.counters.items()
            if name in names or name.startswith("drop_")
        )


def packets(path: Path) -> int:
    """Return how many packets lie in a file."""
    data = path.read_bytes()
    at = count = 0
    while at < len(data):
        count += data[at] == 6
        at += int.from_bytes(data[at + 4 : at + 8], "little")
    return count


def settings(number: int) -> dict[int, PortConfig]:
    """Return settings of all ports but the first two, others for an odd number than for an even one."""
    ports = range(3, PORTS + 1)
    if number % 2:
        return {port_no: PortConfig(PortVlan.access(port_no)) for port_no in ports}
    every = VidSet.of(range(1, MANY_VLANS + 1))
    return {port_no: PortConfig(PortVlan.trunk(every, native=port_no)) for port_no in ports}


def changes(apply: Callable[[dict[int, PortConfig]], object], sending: Callable[[], Any]) -> Figures:
    """Change all settings and change them back, again and again while somebody sends.

    Args:
        apply: Makes a change, and returns when it is made.
        sending: Sends to a receiver that is not concerned, on another processor.
    """
    slowest = 0.0
    with ThreadPoolExecutor(1, initializer=os.sched_setaffinity, initargs=(0, separate()[0])) as pool:
        sent = pool.submit(sending)
        number = 0
        while number < 2 or not sent.done():
            ports = settings(number)
            number += 1
            start = time.perf_counter()
            apply(ports)
            slowest = max(slowest, time.perf_counter() - start)
        result = sent.result()
    return {"time": slowest * 1e3, "lost": lost(result)}


def lost(result: Any) -> float:
    """Return how many frames that the switch took have not arrived."""
    return float(result["stream"].sent - result["received"][0])


def over_the_api(lab: RunningLab, seconds: float, *, change: bool) -> Figures:
    """Measure a call that changes a running switch, or what is lost without one."""
    with lab.bed(CHANGED, Load(idle=PORTS - 2, sources=SOURCES)) as at, lab.client() as client:
        if not change:
            return {"time": 0.0, "lost": lost(at.run(seconds, rate=PACE))}
        # The call is another process's, in truth.
        os.sched_setaffinity(0, separate()[1])
        return changes(
            lambda ports: client.set_switch(CHANGED, ports=ports), lambda: at.run(seconds, rate=PACE)
        )


def in_the_engine(seconds: float) -> Figures:
    """Measure the engine alone, without a daemon around it."""
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, separate()[1])
    engine = native_engine()(SwitchConfig(), None)
    engine.start()
    module = load("_load")
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, own)
        stack.callback(engine.stop)
        ends = []
        for _ in range(PORTS):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            ours.setblocking(False)
            engine.attach(Link(ours.detach(), Framing.DATAGRAM))
            ends.append(stack.enter_context(theirs))
        sender, receiver = ends[:2]
        # A station that the switch knows.
        receiver.send((b"\xff" * 6 + b"\x02" * 6 + b"\x88\xb5").ljust(60, b"\0"))
        sender.recv(2048)

        def send() -> Any:
            stream = module.Stream(sender.fileno(), b"\x02" * 6, b"\x06\0\0\0\0\0", 64, PACE, SOURCES)
            return module.run([stream], [receiver.fileno()], seconds) | {"stream": stream}

        return changes(lambda ports: engine.configure(SwitchConfig(ports=ports)), send)


def comparisons(
    lab: RunningLab, rounds: int, seconds: float
) -> Iterator[tuple[str, Callable[[str], Comparison]]]:
    """Yield the name of everything that is compared, and what compares it under that name."""

    def at_saturation(
        what: str, units: Mapping[str, str], contenders: dict[str, Measure]
    ) -> Callable[[str], Comparison]:
        return lambda name: compare(name, f"{what}, at saturation, unicast", units, contenders, rounds)

    for size in (64, 1514):
        yield (
            f"vlans-{size}",
            at_saturation(f"VLANs, {size} bytes", SATURATION, vlans(lab, size, seconds)),
        )
    for size in (64, 1514):
        yield (
            f"capture-{size}",
            at_saturation(f"Captures, {size} bytes", CAPTURED, captures(lab, size, seconds)),
        )
    title = (
        f"{MANY_VLANS:,} VLANs on {PORTS:,} ports: the slowest of several changes, "
        f"beside {PACE:,} frames/s that are not concerned"
    )
    contenders = {
        "nothing changes": lambda: over_the_api(lab, 2 * seconds, change=False),
        "in the engine": lambda: in_the_engine(seconds),
        "over the API": lambda: over_the_api(lab, 2 * seconds, change=True),
    }
    yield "change", lambda name: compare(name, title, APPLIED, contenders, rounds)


def main() -> None:
    """Compare everything that is asked for."""
    options = command.parser("Measure VLANs, captures and changes of settings.").parse_args()
    seconds = 0.2 if options.quick else 1.0
    facts = machine.facts() | {"seconds of one measurement": f"{seconds:g}"}
    raise_descriptor_limit()
    done = []
    with running_lab("bench", segments(), separate()[1]) as lab:
        for name, run in comparisons(lab, options.rounds, seconds):
            if options.only is None or options.only in name:
                done.append(run(name))
    report.write("vlan_capture", facts, done)


if __name__ == "__main__":
    main()
