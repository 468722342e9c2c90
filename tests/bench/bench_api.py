"""What the API costs: how long a read takes, and what listeners to events take from forwarding.

Run as ``python tests/bench/bench_api.py``.  Everything runs on a daemon of its own, as a user has it.  The
loads take turns, round by round, because the machine's speed drifts; a round whose baseline is more than
30 % off the median of the baselines was disturbed: it is run again and counted as such.

Events are addresses that the switch learns: a guest sends 1,000 frames a second, each from a new source.
Such frames are forwarded in every load but the first, so that only the last one has what listeners cost.
On few processors the listeners themselves, which are one process here, take time from everybody: beside
frames per second stands the daemon's own processor time.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.client
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from measure import machine, report
from measure.guest import Guest
from measure.lab import Segment, running_lab
from measure.process import cpu_seconds
from measure.rounds import Comparison, compare

from umlab.client import Client
from umlab.daemon.place import API_SOCKET, runtime_directory
from umlab.daemon.spec import DEFAULT_RECORDER

LAB = "bench"
FRAMES = 300_000
#: Fewer than the 11 that a guest's socket holds by default (net.unix.max_dgram_qlen + 1).
IN_FLIGHT = 8
EVENTS_PER_SECOND = 1_000
LISTENERS = 50
READS = 300
TARGETS = ("/v1/labs", "/v1/switches/bench", "/v1/switches/bench/ports", "/v1/switches/bench/fdb", "/metrics")
LOADS = ("forwarding alone", "and 1,000 events/s", f"and {LISTENERS} listeners")

#: Sends frames from ever new sources to one that the switch knows at the same port, so that they end there.
_SOURCES = """
import os, socket, struct, sys, time
from measure.guest import Guest
guest = Guest(sys.argv[1], 200)
guest.sock.send(b"\\xff" * 6 + guest.mac + b"\\x88\\xb5" + bytes(46))
start, count, serial = time.monotonic(), 0, int.from_bytes(os.urandom(3), "big")
print("ready", flush=True)
while True:
    while count < (time.monotonic() - start) * float(sys.argv[2]):
        serial += 1
        guest.sock.send(guest.mac + struct.pack(">HI", 0x0206, serial) + b"\\x88\\xb5" + bytes(46))
        count += 1
    time.sleep(0.005)
"""

#: Listens many times; writes how many bytes have come to each listener at the end of its input.
_LISTENERS = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for number in range(int(sys.argv[2])):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(sys.argv[1])
    sock.sendall(b"GET /v1/events HTTP/1.1\\r\\nhost: umlab\\r\\n\\r\\n")
    assert sock.recv(65536).startswith(b"HTTP/1.1 200")
    selector.register(sock, selectors.EVENT_READ)
selector.register(sys.stdin, selectors.EVENT_READ)
print("ready", flush=True)
events = 0
while True:
    for key, _ in selector.select():
        if key.fileobj is sys.stdin:
            print(events)
            sys.exit()
        data = key.fileobj.recv(1 << 20)
        assert data, "a listener was cut"
        events += data.count(b"event: mac_learned")
"""


class UnixConnection(http.client.HTTPConnection):
    """One connection to the daemon."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.fspath(runtime_directory(LAB) / API_SOCKET))


@contextlib.contextmanager
def child(program: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a program that says when it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit("a program of the load does not come up")
        yield process
    finally:
        process.kill()
        process.communicate()


def read_times(target: str) -> list[float]:
    """Return how many milliseconds each of many reads takes, one after the other on one connection."""
    connection, times = UnixConnection("umlab"), []
    for _ in range(READS if target != "/metrics" else READS // 10):
        start = time.perf_counter()
        connection.request("GET", target)
        answer = connection.getresponse()
        answer.read()
        times.append((time.perf_counter() - start) * 1e3)
        assert answer.status == 200
    connection.close()
    return times


def report_reads(ports: int) -> None:
    """Print the median and the 95th percentile of every target."""
    print(f"reads, {ports} ports:")
    for target in TARGETS:
        times = read_times(target)
        p95 = statistics.quantiles(times, n=20)[-1]
        print(f"  {target:<28}{statistics.median(times):>8.2f} ms median{p95:>8.2f} ms p95")


def measure(load: int, pid: int, control: str) -> dict[str, float]:
    """Run one load once."""
    with contextlib.ExitStack() as stack:
        guests = [Guest(Path(control), number) for number in range(2)]
        for guest in guests:
            stack.callback(guest.close)
        sender, receiver = guests
        listeners = None
        if load > 1:
            listeners = stack.enter_context(child(_LISTENERS, runtime_directory(LAB) / API_SOCKET, LISTENERS))
        if load > 0:
            stack.enter_context(child(_SOURCES, control, EVENTS_PER_SECOND))
            receiver.sock.recv(2048)
            sender.sock.recv(2048)
        sender.greet([receiver])
        receiver.greet([sender])
        frame = (receiver.mac + sender.mac + b"\x88\xb5").ljust(64, b"\0")
        cpu = cpu_seconds(pid)
        seconds = push(sender.sock, receiver.sock, frame, FRAMES)
        cpu = cpu_seconds(pid) - cpu
        rate = 0.0
        if listeners is not None:
            rate = int(listeners.communicate("\n")[0]) / LISTENERS / seconds
    with Client(LAB) as client:
        client.flush_fdb(LAB)
    return {"rate": FRAMES / seconds, "daemon's time": cpu / FRAMES * 1e6, "events": rate}


def push(sender: socket.socket, receiver: socket.socket, frame: bytes, count: int) -> float:
    """Send frames with a few in flight, so that none is lost; return the seconds until all have arrived."""
    start = time.perf_counter()
    for _ in range(IN_FLIGHT):
        sender.send(frame)
    for _ in range(count - IN_FLIGHT):
        receiver.recv(2048)
        sender.send(frame)
    for _ in range(IN_FLIGHT):
        receiver.recv(2048)
    return time.perf_counter() - start


def loads(pid: int, control: str, rounds: int) -> Comparison:
    """Run the loads in turns."""
    return compare(
        "api-loads",
        f"Forwarding through a lab daemon, 64 bytes, {IN_FLIGHT} frames in flight",
        {"rate": "frames/s", "daemon's time": "us/frame", "events": "per s and listener"},
        {name: functools.partial(measure, load, pid, control) for load, name in enumerate(LOADS)},
        rounds,
    )


def main() -> None:
    """Measure reads, then forwarding."""
    parser = argparse.ArgumentParser(description="Measure what the API costs.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--ports", type=int, default=1000, help="for the reads")
    options = parser.parse_args()
    facts = machine.facts()
    with running_lab(LAB, [Segment(LAB, recorder=DEFAULT_RECORDER)]) as lab:
        pid, control = lab.pid, str(lab.control(LAB))
        report_reads(0)
        with contextlib.ExitStack() as stack:
            for number in range(options.ports):
                stack.callback(Guest(Path(control), number % 256).close)
            report_reads(options.ports)
        report.write("api", facts, [loads(pid, control, options.rounds)])


if __name__ == "__main__":
    main()
