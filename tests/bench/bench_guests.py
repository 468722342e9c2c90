"""TCP throughput and ping time between two real guests, on our switch and on the C ``uml_switch``.

Run as ``python tests/bench/bench_guests.py``.  A contender is a switch process as a user starts it, with a
pair of UML guests of its own.  (With ``fd`` a lab's daemon is the switch and starts the guests; here
``fd_switch.py`` is given its ends of the socket pairs instead.)  All are started before the first round and
stay until the end: an idle guest uses no processor, and a pair that is booted for each round begins it with
a cold page cache and a kernel that still does its work of the first seconds.  Guests keep nothing of a
connection for the next one (``tcp_no_metrics_save``).

Throughput is what iperf3 has received on one stream; beside it stand the processor time of the switch for
each gigabyte and the segments that TCP had to send again.  Guests and switch share the machine's processors,
so time that the switch saves is the guests' to use.  Pings leave a hundred times a second, with nothing else
going on; the first answer, which needs ARP, is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import signal
import socket
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import guest_root
from measure import command, machine, report
from measure.process import cpu_seconds
from measure.rounds import Comparison, Unable, compare
from measure.switch import SWITCHES, Switch, running

from umlab.daemon.guest import GuestService
from umlab.guest.cmdline import BessNic, DaemonNic, FdNic, GuestSpec, Nic
from umlab.transports.fd import socket_pair

#: Seconds for a switch, a guest or a command in a guest.
PATIENCE = 60
ADDRESSES = "10.0.0.1", "10.0.0.2"
#: Seconds between pings.
INTERVAL = 0.01
PING_TIME = re.compile(r"seq=(\d+) .*time=([0-9.]+) ms")


@dataclass(frozen=True)
class Contender:
    """A switch and how guests attach to it.

    Attributes:
        name: Its line of the table.
        engine: Ours, or None for the C ``uml_switch``.
        transport: Guests attach with ``eth0`` to a control socket (``daemon``), with ``vec0`` to a
            SOCK_SEQPACKET socket (``bess``), or have the end of a socket pair as ``vec0`` (``fd``).
        mtu: Bytes, of the guests' NICs.
    """

    name: str
    engine: str | None
    transport: str = "daemon"
    mtu: int = 1500


CONTENDERS = (
    Contender("C uml_switch, daemon", None),
    Contender("native, daemon", "native"),
    Contender("Python, daemon", "py"),
    Contender("native, bess", "native", "bess"),
    Contender("Python, bess", "py", "bess"),
    Contender("native, bess, MTU 16000", "native", "bess", mtu=16_000),
    Contender("native, fd", "native", "fd"),
    Contender("native, fd, MTU 16000", "native", "fd", mtu=16_000),
)


class Pair:
    """Two guests on one switch.

    Args:
        runner: The event loop that has the guests.
        pid: The switch.
        left: The one that sends.
        right: The one that answers.
    """

    def __init__(self, runner: asyncio.Runner, pid: int, left: GuestService, right: GuestService) -> None:
        self._runner, self._pid, self._left = runner, pid, left
        self._shell(right, f"{guest_root.IPERF3} -s -D")
        self._shell(left, f"ping -c 1 {ADDRESSES[1]}")

    def throughput(self, seconds: int) -> dict[str, float]:
        """Let TCP send as much as it can."""
        cpu = cpu_seconds(self._pid)
        output = self._shell(self._left, f"{guest_root.IPERF3} -c {ADDRESSES[1]} -t {seconds} -J")
        cpu = cpu_seconds(self._pid) - cpu
        end = json.loads(output)["end"]
        received = end["sum_received"]
        return {
            "throughput": received["bits_per_second"] / 1e9,
            "switch": cpu / (received["bytes"] / 1e9),
            "sent again": end["sum_sent"]["retransmits"],
        }

    def ping(self, count: int) -> dict[str, float]:
        """Ping at leisure."""
        output = self._shell(self._left, f"ping -i {INTERVAL} -c {count + 1} {ADDRESSES[1]}")
        times = [float(time) * 1e3 for seq, time in PING_TIME.findall(output) if seq != "0"]
        if not times:
            raise SystemExit(f"no ping was answered: {output}")
        return {
            "p50": statistics.median(times),
            "mean": statistics.mean(times),
            "least": min(times),
            "unanswered": count - len(times),
        }

    def _shell(self, guest: GuestService, script: str) -> str:
        return self._runner.run(_shell(guest, script))


async def _shell(guest: GuestService, script: str) -> str:
    result = await guest.run(script, PATIENCE)
    output = result.output.decode(errors="replace")
    if result.status != 0:
        raise SystemExit(f"{guest.umid}: {script}: status {result.status}: {output}")
    return output


def switch_of(contender: Contender, ends: tuple[int, ...]) -> Switch:
    """Return how a contender's switch is run, on ``ctl`` and, ours, ``bess`` in its directory, or on ends."""
    if contender.engine is None:
        return SWITCHES[0]
    environment = {"UMLAB_ENGINE": contender.engine}
    max_frame = str(contender.mtu + 18)
    if ends:
        program = str(Path(__file__).with_name("fd_switch.py"))
        words = (sys.executable, program, "{}/ctl", max_frame, *map(str, ends))
        return Switch(contender.name, words, environment=environment, inherited=ends)
    umlab = str(Path(sys.executable).with_name("umlab"))
    command = ("env", "XDG_RUNTIME_DIR={}", "XDG_STATE_HOME={}", umlab, "switch", "run", "bench")
    command += (
        "--listen",
        "daemon:{}/ctl",
        "--listen",
        "bess:{}/bess",
        "--max-frame",
        max_frame,
    )
    return Switch(contender.name, command, environment=environment)


@contextlib.contextmanager
def running_guest(
    runner: asyncio.Runner,
    contender: Contender,
    place: Path,
    tools: Path,
    address: str,
    end: socket.socket | None,
) -> Iterator[GuestService]:
    """Boot a guest that is ready to measure, and end it; the end of a socket pair is closed here."""
    nics: dict[str, Nic] = {
        "daemon": DaemonNic(f"{place}/ctl"),
        "bess": BessNic(f"{place}/bess", mtu=contender.mtu),
        "fd": FdNic("bench", mtu=contender.mtu),
    }
    device = "eth0" if contender.transport == "daemon" else "vec0"

    async def start() -> GuestService:
        spec = GuestSpec(f"bench{address[-1]}", nics=(nics[contender.transport],))
        guest = await GuestService.start(
            spec, os.fspath(place), nic_fds=() if end is None else (end.fileno(),)
        )
        if end is not None:
            end.close()
        try:
            await guest.ready(PATIENCE)
            await _shell(guest, guest_root.install_command(tools))
            await _shell(
                guest,
                "echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save && "
                f"ip addr add {address}/24 dev {device} && ip link set {device} up",
            )
        except BaseException:
            await guest.stop()
            raise
        return guest

    guest = runner.run(start())
    try:
        yield guest
    finally:
        runner.run(guest.stop())


@contextlib.contextmanager
def running_pair(runner: asyncio.Runner, contender: Contender, tools: Path) -> Iterator[Pair]:
    """Run a contender's switch and guests.

    Raises:
        Unable: There is no such switch here.
    """
    print(f"{contender.name}: a switch and two guests", file=sys.stderr, flush=True)
    with contextlib.ExitStack() as stack:
        pairs = [tuple(map(stack.enter_context, socket_pair())) for _ in ADDRESSES]
        ours = [end for end, _ in pairs] if contender.transport == "fd" else []
        theirs = [end for _, end in pairs] if ours else [None] * len(ADDRESSES)
        # Switch and guests run where they like, as a user's do.
        described = switch_of(contender, tuple(end.fileno() for end in ours))
        switch = stack.enter_context(running(described, os.sched_getaffinity(0)))
        for end in ours:
            end.close()
        place = switch.control.parent
        left, right = [
            stack.enter_context(running_guest(runner, contender, place, tools, address, end))
            for address, end in zip(ADDRESSES, theirs, strict=True)
        ]
        yield Pair(runner, switch.pid, left, right)


def comparisons(
    pairs: Mapping[str, Pair | Unable], rounds: int, quick: bool, only: str
) -> Iterator[Comparison]:
    """Compare what was asked for."""

    def measure(name: str, figures: Callable[[Pair], dict[str, float]]) -> dict[str, float]:
        pair = pairs[name]
        if isinstance(pair, Unable):
            raise pair
        return figures(pair)

    def each(figures: Callable[[Pair], dict[str, float]]) -> dict[str, Callable[[], dict[str, float]]]:
        return {name: functools.partial(measure, name, figures) for name in pairs}

    seconds, pings = (1, 50) if quick else (5, 200)
    if only in "guests-tcp":
        yield compare(
            "guests-tcp",
            f"TCP between two guests, one stream, {seconds} s",
            {"throughput": "Gbit/s", "switch": "CPU s/GB", "sent again": "segments"},
            each(lambda pair: pair.throughput(seconds)),
            rounds,
        )
    if only in "guests-ping":
        yield compare(
            "guests-ping",
            f"Ping between two guests, {pings}, one each {INTERVAL * 1000:.0f} ms, nothing else going on",
            {"p50": "us", "mean": "us", "least": "us", "unanswered": "pings"},
            each(lambda pair: pair.ping(pings)),
            rounds,
        )


def main() -> None:
    """Measure throughput, then pings."""
    options = command.parser("Measure TCP and pings between two guests.").parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    facts = machine.facts()
    with contextlib.ExitStack() as stack:
        tools = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="uml")))
        guest_root.collect(tools)
        runner = stack.enter_context(asyncio.Runner())
        pairs: dict[str, Pair | Unable] = {}
        for contender in CONTENDERS:
            try:
                pairs[contender.name] = stack.enter_context(running_pair(runner, contender, tools))
            except Unable as error:
                pairs[contender.name] = error
        rounds = 1 if options.quick else options.rounds
        report.write("guests", facts, list(comparisons(pairs, rounds, options.quick, options.only or "")))


if __name__ == "__main__":
    main()
