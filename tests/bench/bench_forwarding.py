"""Frames per second through our switch and through the C ``uml_switch``, side by side.

Run as ``python tests/bench/bench_forwarding.py``.  Both are processes of their own, reached by the same
client over daemon protocol v3.  The client keeps a fixed number of frames in flight, fewer than a
guest's socket holds, so nothing is lost and a round ends when every frame has arrived.

The two take turns, round by round, because the machine's speed drifts.  A round whose baseline is more
than 30 % off the median of the baselines was disturbed: it is run again and counted as such.  Beside
frames per second stands the switch's own processor time per frame, which a busy machine changes less.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Fewer than the 11 that a guest's socket holds by default (net.unix.max_dgram_qlen + 1).
IN_FLIGHT = 8
DISTURBED = 0.3
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
REQUEST = struct.Struct("=IIiH108s2x")
REPLY = struct.Struct("=H108s")


@dataclass(frozen=True)
class Load:
    """What is sent: ``ports`` includes the sender; with more than 2, every frame is a flood."""

    name: str
    ports: int
    size: int
    frames: int


LOADS = (
    Load("unicast, 64 bytes", 2, 64, 30_000),
    Load("unicast, 1514 bytes", 2, 1514, 30_000),
    Load("flood to 15 ports, 64 bytes", 16, 64, 4_000),
)


@dataclass(frozen=True)
class Result:
    """One round of one switch."""

    frames_per_second: float
    cpu_us_per_frame: float


class Guest:
    """A client of daemon protocol v3."""

    def __init__(self, control: Path, number: int) -> None:
        # All 108 bytes, as the UML kernel binds it: a shorter name would be another name.
        name = f"\0bench-{os.getpid()}-{time.monotonic_ns()}-{number}".encode().ljust(108, b"\0")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(name)
        self.sock.settimeout(20)
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.control.settimeout(20)
        self.control.connect(os.fspath(control))
        self.control.sendall(REQUEST.pack(0xFEEDFACE, 3, 0, socket.AF_UNIX, name))
        _, path = REPLY.unpack(self.control.recv(REPLY.size, socket.MSG_WAITALL))
        self.sock.connect(path if path[0] == 0 else path.partition(b"\0")[0])
        self.mac = b"\x02\0\0\0\0" + bytes([number])

    def close(self) -> None:
        self.sock.close()
        self.control.close()


@contextlib.contextmanager
def running(program: Path) -> Iterator[tuple[int, Path]]:
    """Run a switch in a directory of its own; give its process id and its control socket."""
    directory = Path(tempfile.mkdtemp(prefix="uml"))
    control = directory / "ctl"
    process = subprocess.Popen(
        [program, "-unix", control],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 20
        while not _accepts(control):
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{program} does not come up")
            time.sleep(0.01)
        yield process.pid, control
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory)


def measure(program: Path, load: Load) -> Result:
    """Run one round on a fresh switch."""
    with running(program) as (pid, control), contextlib.ExitStack() as stack:
        guests = []
        for number in range(load.ports):
            guests.append(Guest(control, number))
            stack.callback(guests[-1].close)
        sender, receivers = guests[0], guests[1:]
        # The sender attached first: when its greeting reaches all, all are attached and it is learnt.
        _greet(sender, receivers)
        _greet(receivers[0], [sender, *receivers[1:]])
        destination = receivers[0].mac if load.ports == 2 else b"\xff" * 6
        frame = (destination + sender.mac + b"\x88\xb5").ljust(load.size, b"\0")
        cpu = _cpu_seconds(pid)
        seconds = _push(sender.sock, [guest.sock for guest in receivers], frame, load.frames)
        cpu = _cpu_seconds(pid) - cpu
        return Result(load.frames / seconds, cpu / load.frames * 1e6)


def compare(baseline: Path, ours: Path, load: Load, rounds: int) -> tuple[list[tuple[Result, Result]], int]:
    """Run rounds in turns until enough are undisturbed; give them and the number of disturbed ones."""
    kept: list[tuple[Result, Result]] = []
    disturbed = 0
    while len(kept) < rounds:
        while len(kept) < rounds:
            kept.append((measure(baseline, load), measure(ours, load)))
        median = statistics.median(base.frames_per_second for base, _ in kept)
        calm = [pair for pair in kept if abs(pair[0].frames_per_second - median) <= DISTURBED * median]
        disturbed += len(kept) - len(calm)
        kept = calm
        if disturbed > 4 * rounds:
            raise SystemExit(f"{load.name}: the machine is too restless, {disturbed} rounds were disturbed")
    return kept, disturbed


def report(load: Load, pairs: list[tuple[Result, Result]], disturbed: int) -> None:
    """Print the medians, the spread and the ratio of one load."""
    print(f"{load.name}: {len(pairs)} rounds of {load.frames} frames, {disturbed} disturbed and repeated")
    for name, results in (("C uml_switch", [base for base, _ in pairs]), ("ours", [own for _, own in pairs])):
        rates = [result.frames_per_second for result in results]
        cpu = statistics.median(result.cpu_us_per_frame for result in results)
        print(
            f"  {name:<14}{statistics.median(rates):>10,.0f} frames/s"
            f"  ({min(rates):,.0f} to {max(rates):,.0f}), {cpu:.1f} us of processor time a frame"
        )
    ratios = [own.frames_per_second / base.frames_per_second for base, own in pairs]
    print(f"  {'ours / C':<14}{statistics.median(ratios):>10.2f}  ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    """Compare under every load."""
    parser = argparse.ArgumentParser(description="Compare our switch with the C uml_switch.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--baseline", type=Path, default=Path("/usr/bin/uml_switch"))
    parser.add_argument("--ours", type=Path, default=Path(sys.executable).parent / "uml_switch")
    options = parser.parse_args()
    for load in LOADS:
        report(load, *compare(options.baseline, options.ours, load, options.rounds))


def _push(sender: socket.socket, receivers: list[socket.socket], frame: bytes, count: int) -> float:
    send, receive = sender.send, [sock.recv for sock in receivers]
    start = time.perf_counter()
    for _ in range(IN_FLIGHT):
        send(frame)
    for _ in range(count - IN_FLIGHT):
        for each in receive:
            each(2048)
        send(frame)
    for _ in range(IN_FLIGHT):
        for each in receive:
            each(2048)
    return time.perf_counter() - start


def _greet(sender: Guest, receivers: list[Guest]) -> None:
    sender.sock.send((b"\xff" * 6 + sender.mac + b"\x88\xb5").ljust(60, b"\0"))
    for receiver in receivers:
        receiver.sock.recv(2048)


def _cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its threads have used, in ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _accepts(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(os.fspath(control)) == 0


if __name__ == "__main__":
    main()
