"""A switch with guests attached, and what is measured there with the load of ``_load.pyx``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .extension import load
from .guest import Guest, Visitor
from .process import resident_mb
from .rounds import Unable
from .switch import Running, Switch, running, separate

BROADCAST = b"\xff" * 6
#: Where the addresses of a sender with many begin; a guest's own begin with 02.
MANY = b"\x06\0\0\0\0\0"
#: Frames per second before anything is measured.
PREPARATION = 20_000
#: What may be lost where nothing to speak of is.
LOSSLESS = 0.001
#: Frames per second of a guest that disturbs others, and visitors per second.
DISTURBANCE, VISITS = 10_000, 100
#: Microseconds that a sleeping guest waits for its socket before it looks whether the time is over.
SLEEP_US = 10_000
#: Addresses that our switch keeps.
FULL_FDB = 65_536


@dataclass(frozen=True)
class Load:
    """What is sent, and who is there.

    Attributes:
        size: Bytes of a frame.
        receivers: Guests that read; with more than one every frame goes to all.
        idle: Guests that do nothing.
        sources: How many source addresses the sender has.
        tags: What frames of the sender and of receivers have behind their addresses.
    """

    size: int = 64
    receivers: int = 1
    idle: int = 0
    sources: int = 1
    tags: tuple[bytes, bytes] = (b"", b"")


class Bed:
    """A sender, receivers and idle guests on a running switch."""

    def __init__(self, at: Running, what: Load, stack: contextlib.ExitStack) -> None:
        self.at, self.what = at, what
        self._stack = stack
        self._load = load("_load")
        self.sender = self.guest(1, connected=True)
        self.receivers = [self.guest(2 + number) for number in range(what.receivers)]
        self.sender.tag = what.tags[0]
        for receiver in self.receivers:
            receiver.tag = what.tags[1]
        for _ in range(what.idle):
            self.guest(255)
        # When a greeting has come to all, all are attached, and whom it came from is learnt.
        try:
            self.sender.greet(self.receivers)
            self.receivers[0].greet([self.sender, *self.receivers[1:]])
        except TimeoutError:
            raise Unable("no frame arrives") from None
        self._learn_sources()

    def _learn_sources(self) -> None:
        seconds = 0.05 + 1.25 * self.what.sources / PREPARATION
        # This process may be kept from running; a switch that is too slow stays so.
        for _ in range(4):
            if self.run(seconds, rate=PREPARATION)["stream"].sent >= self.what.sources:
                return
            seconds *= 2
        raise Unable(f"does not take {self.what.sources:,} addresses in time")

    def guest(self, number: int, connected: bool | None = None) -> Guest:
        """Attach a guest, as those are that the switch is meant for."""
        if connected is None:
            connected = self.at.switch.connected
        try:
            guest = Guest(self.at.control, number, connected)
        except OSError as error:
            raise Unable(f"a guest cannot attach: {error}") from None
        self._stack.callback(guest.close)
        return guest

    def run(
        self,
        seconds: float,
        *,
        rate: float = 0,
        latency: bool = False,
        beside: tuple[Any, ...] = (),
        receivers: list[int] | None = None,
        window: int = 0,
        **more: Any,
    ) -> Any:
        """Send for a while; return what ``run`` of the load does, with the stream added as ``stream``."""
        one = len(self.receivers) == 1
        stream = self._load.Stream(
            self.sender.sock.fileno(),
            self.receivers[0].mac if one else BROADCAST,
            self.sender.mac if self.what.sources == 1 else MANY,
            self.what.size,
            rate,
            self.what.sources,
            window,
            self.sender.tag,
        )
        if receivers is None:
            receivers = [receiver.sock.fileno() for receiver in self.receivers]
        try:
            result = self._load.run(
                [stream, *beside], receivers, seconds, pid=self.at.pid, latency=latency, **more
            )
        except OSError as error:
            raise Unable(f"the switch is gone: {error}") from None
        return result | {"stream": stream}

    def saturate(self, seconds: float, **more: Any) -> dict[str, float]:
        """Send as fast as the switch takes it."""
        result = self.run(seconds, **more)
        # On a busy machine a short time may pass without a frame.
        return _figures(result if result["arrived"] else self.run(seconds, **more))

    def saturate_from_asleep(self, seconds: float) -> dict[str, float]:
        """Send as fast as the switch takes it; sender and receiver are threads that sleep in their sockets.

        The switch wakes them up, which is most of what it costs to serve a guest that is not busy.
        """
        return _figures(self._run_asleep(seconds))

    def _run_asleep(self, seconds: float, rate: float = 0) -> Any:
        for guest in (self.sender, *self.receivers):
            guest.sleep_at_most(SLEEP_US)
        receivers = [receiver.sock.fileno() for receiver in self.receivers]
        with ThreadPoolExecutor(1) as pool:
            # It starts before the first frame and goes on for a little after the last.
            reading = pool.submit(self._load.run, [], receivers, seconds + 0.1, sleep=True)
            result = self.run(seconds, rate=rate, receivers=[], sleep=True)
            received = reading.result()["received"]
        return result | {"received": received, "arrived": sum(received)}

    def paced(self, rate: float, seconds: float) -> dict[str, float]:
        """Send at a rate and take the time of every frame."""
        result = self.run(seconds, rate=rate, latency=True)
        times = result["latencies"]
        if not times:
            raise Unable("no frame arrives")
        return {
            "cpu": result["cpu"] * 1e6 / result["arrived"],
            "p50": times[len(times) // 2] / 1e3,
            "p99": times[len(times) * 99 // 100] / 1e3,
            "loss": _loss(result) * 100,
        }

    def holds(self, rate: float, seconds: float, asleep: bool) -> bool:
        """Tell whether nothing to speak of is lost in that time; ends as soon as too much is."""
        run = self._run_asleep if asleep else self.run
        slices = max(1, round(seconds))
        offered, lost, most = 0, 0, LOSSLESS * rate * seconds * len(self.receivers)
        for _ in range(slices):
            result = run(seconds / slices, rate=rate)
            wanted = result["stream"].offered * len(self.receivers)
            offered += wanted
            lost += wanted - sum(result["received"])
            if lost > most:
                return False
        return offered > 0 and lost <= LOSSLESS * offered

    def beside_a_stopped_guest(self, seconds: float) -> dict[str, float]:
        """Saturate while another guest gets frames and does not read them."""
        stopped, talker = self.guest(101), self.guest(102, connected=True)
        stopped.greet([self.sender, *self.receivers, talker])
        stream = self._load.Stream(talker.sock.fileno(), stopped.mac, talker.mac, 64, DISTURBANCE)
        return self.saturate(seconds, beside=(stream,))

    def beside_random_sources(self, seconds: float) -> dict[str, float]:
        """Saturate while another guest sends to itself from ever new addresses, when the table is full."""
        hostile = self.guest(101, connected=True)
        hostile.greet([self.sender, *self.receivers])
        flood = self._load.Stream(hostile.sock.fileno(), hostile.mac, MANY, 64, 2 * DISTURBANCE, 0)
        self._load.run([flood], [hostile.sock.fileno()], FULL_FDB / (2 * DISTURBANCE))
        stream = self._load.Stream(hostile.sock.fileno(), hostile.mac, MANY, 64, DISTURBANCE, 0)
        return self.saturate(seconds, beside=(stream,))

    def beside_visitors(self, seconds: float) -> dict[str, float]:
        """Saturate while guests come and go."""
        visitors: list[Visitor] = []

        def change() -> None:
            while visitors:
                visitors.pop().leave()
            # Where the switch is behind, none comes this time.
            with contextlib.suppress(BlockingIOError):
                visitors.append(Visitor(self.at.control))

        try:
            return self.saturate(seconds, tick=change, every=1 / VISITS)
        finally:
            for visitor in visitors:
                visitor.leave()

    def memory(self) -> dict[str, float]:
        """Return what the switch has resident."""
        proportional = Path(f"/proc/{self.at.pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0]
        return {"resident": resident_mb(self.at.pid), "proportional": int(proportional) * 1024 / 1e6}


@contextlib.contextmanager
def bed(switch: Switch, what: Load, apart: bool = True) -> Iterator[Bed]:
    """Run a fresh switch with guests; ``apart``, this process goes to a processor of its own meanwhile."""
    own = os.sched_getaffinity(0)
    load_processors, switch_processors = separate() if apart else (own, own)
    with contextlib.ExitStack() as stack:
        at = stack.enter_context(running(switch, switch_processors))
        stack.callback(os.sched_setaffinity, 0, own)
        os.sched_setaffinity(0, load_processors)
        yield Bed(at, what, stack)


def _figures(result: Any) -> dict[str, float]:
    if not result["arrived"]:
        raise Unable("no frame arrives")
    return {
        "rate": result["arrived"] / len(result["received"]) / result["seconds"],
        "cpu": result["cpu"] * 1e6 / result["arrived"],
        "loss": _loss(result) * 100,
    }


def _loss(result: Any) -> float:
    wanted = result["stream"].offered * len(result["received"])
    return 1 - sum(result["received"]) / wanted if wanted else 0.0
