"""Minutes under full load with ports that come and go: nothing grows, and two that talk lose nothing.

``UMLAB_SOAK_SECONDS`` shortens the ten minutes of each test.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from integration.peers.fake_guest import FakeGuest
from integration.peers.uml_switch import uml_switch
from support.deadline import wait_until
from support.engines import ENGINES
from support.exchange import background, running_exchange
from support.guest_end import BROADCAST, frame, mac, plug, plug_shared, plug_unconnected
from umlab.engine.contract import Engine
from umlab.switch.model import SECOND_NS, Framing, SwitchConfig

SECONDS = float(os.environ.get("UMLAB_SOAK_SECONDS", "600"))
#: The part of it after which everything has been used once, at its largest.
WARM_UP = 0.2
#: Bytes by which resident memory may grow after that: what this process's or Python's allocators keep.
TOLERANCE = 4 << 20

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(SECONDS * 2 + 120)]

STOPPED, FLOODER = mac(0xCCCCCC), mac(0xF00D)


@dataclass(frozen=True)
class Holding:
    """What a process holds.

    Attributes:
        resident: Bytes of memory.
        descriptors: Their number.
        threads: Their number.
    """

    resident: int
    descriptors: int
    threads: int


def holding(pid: int) -> Holding:
    """Return what a process holds now."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Holding(
        int(status["VmRSS"].split()[0]) * 1024, len(os.listdir(f"/proc/{pid}/fd")), int(status["Threads"])
    )


def soak(pid: int, turn: Callable[[], None]) -> None:
    """Take turns for all the time, and assert that the process holds no more in the end than early on."""
    begin = time.monotonic()
    turns = 0
    early: Holding | None = None
    while (elapsed := time.monotonic() - begin) < SECONDS:
        if early is None and elapsed > SECONDS * WARM_UP:
            early = holding(pid)
        turn()
        turns += 1
    assert early is not None
    assert turns > 100
    wait_until(lambda: holding(pid).descriptors <= early.descriptors, 10, "descriptors are given back")
    wait_until(lambda: holding(pid).threads <= early.threads, 10, "threads end")
    grown = holding(pid).resident - early.resident
    print(f"{turns} turns; {early}; grown by {grown / 1024:.0f} KiB")
    assert grown < TOLERANCE, f"memory grows: {grown} bytes in {turns} turns"


def flood(send: Callable[[bytes], None]) -> Callable[[], None]:
    """Return a function that sends frames of three sizes, of ever new stations, to who has stopped."""
    sizes = (60, 1514, 9000)

    def burst() -> None:
        for size in sizes:
            send((STOPPED + b"\x06" + os.urandom(5) + b"\x88\xb5").ljust(size, b"\0"))

    return burst


@contextmanager
def shared_receiver() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("")
        yield sock


def test_engine_in_this_process() -> None:
    kind = "native" if "native" in ENGINES else "py"
    config = SwitchConfig(fdb_capacity=4096, ageing_time_ns=2 * SECOND_NS)
    engine: Engine = ENGINES[kind](config, None)
    engine.start()
    numbers = count()
    with shared_receiver() as shared:
        ways = [
            plug,
            plug_unconnected,
            lambda engine: plug_shared(engine, shared),
            lambda engine: plug(engine, Framing.SEQPACKET),
            lambda engine: plug(engine, Framing.DEVICE),
        ]
        left, right, stopped, flooder = guests = (
            plug_unconnected(engine),
            plug_unconnected(engine),
            plug_unconnected(engine),
            plug(engine),
        )

        def turn() -> None:
            """Let a guest come, talk to the stopped one and to all, and go, dead or detached first."""
            number = next(numbers)
            stopped.send(frame(BROADCAST, STOPPED))  # lest it ages
            guest = ways[number % len(ways)](engine)
            guest.send(frame(STOPPED, mac(number), 9000))
            guest.send(frame(BROADCAST, mac(number), 60 + number % 3000))
            if number % 2:
                guest.close()
            engine.detach(guest.port_no)
            guest.close()
            flooder.waiting()
            engine.configure(SwitchConfig(fdb_capacity=2048 + number % 2048, ageing_time_ns=2 * SECOND_NS))
            engine.take_events()
            assert len(engine.fdb()) <= 4096
            assert engine.debug_counts()["ports"] == 4

        stopped.send(frame(BROADCAST, STOPPED))
        with running_exchange(left, right), background(flood(flooder.send)):
            soak(os.getpid(), turn)
        engine.stop()
        assert set(engine.debug_counts().values()) == {0}
        for guest in guests:
            guest.close()


async def test_drop_in_process(short_dir: Path) -> None:
    control, data = short_dir / "ctl", short_dir / "data"
    numbers = count()
    async with uml_switch(
        "ours", ["-unix", str(control), str(data)], cwd=short_dir, ready=[control, data]
    ) as switch:
        left, right, stopped, flooder = guests = [FakeGuest(control).attach() for _ in range(4)]

        def turn() -> None:
            number = next(numbers)
            stopped.send(frame(BROADCAST, STOPPED))
            with FakeGuest(control, data) as guest:
                guest.attach((3, 1, 0)[number % 3])
                guest.send(frame(STOPPED, mac(number), 9000))
                guest.send(frame(BROADCAST, mac(number), 60 + number % 3000))
            flooder.receive_waiting()
            # What it prints is read by the event loop, and not kept.
            switch.stdout.clear()
            switch.stderr.clear()

        stopped.send(frame(BROADCAST, STOPPED))

        def run() -> None:
            with running_exchange(left, right), background(flood(flooder.send)):
                soak(switch.pid, turn)

        await asyncio.to_thread(run)
        for guest in guests:
            guest.close()
