"""How long traffic stands still when a lab's daemon is killed and started again.

Run as ``python tests/bench/bench_restart.py``.  One client sends a numbered frame to another every
millisecond, and the daemon is killed (SIGKILL) and started again at once, as a service manager would.  The
gap of a round is the longest span between two frames that arrive; frames that the dead time cost are
counted.  Beside it stands how much memory daemon and keeper have resident.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import struct
import tempfile
import threading
import time

from measure.guest import Guest
from measure.process import resident_mb

from umlab.api.background import start_in_background
from umlab.client import Client
from umlab.daemon.order import LabOrder
from umlab.daemon.place import runtime_directory
from umlab.daemon.spec import SwitchSpec, resolve_listen
from umlab.switch.model import SwitchConfig

LAB = "bench"
#: Seconds between two frames, of traffic before the kill, and of traffic after the daemon is back.
PERIOD, BEFORE, AFTER = 0.001, 1.0, 1.0


class Traffic:
    """Frames from one client to another, until it is stopped."""

    def __init__(self, sender: Guest, receiver: Guest) -> None:
        self._sender, self._receiver = sender, receiver
        self._stop = threading.Event()
        self.sent = 0
        self.arrived: list[float] = []
        self._threads = [threading.Thread(target=each) for each in (self._send, self._receive)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        head = self._receiver.mac + self._sender.mac + b"\x88\xb5"
        self._sender.sock.setblocking(False)
        while not self._stop.wait(PERIOD):
            # Nobody reads while there is no daemon: the frame is lost, as it would be to a guest.
            with contextlib.suppress(BlockingIOError):
                self._sender.sock.send(head + struct.pack("=Q", self.sent) + bytes(38))
            self.sent += 1

    def _receive(self) -> None:
        self._receiver.sock.settimeout(0.1)
        while not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                self._receiver.sock.recv(2048)
                self.arrived.append(time.monotonic())

    def gap(self) -> float:
        """Return the longest span without an arrival, in seconds."""
        return max(later - earlier for earlier, later in zip(self.arrived, self.arrived[1:], strict=False))


def measure() -> tuple[float, int]:
    """Run one round; return the gap in seconds and the frames that were lost."""
    control = runtime_directory(LAB) / f"{LAB}.ctl"
    left, right = Guest(control, 1), Guest(control, 2)
    try:
        # Each is learned before anything is measured.
        right.sock.send(left.mac + right.mac + b"\x88\xb5" + bytes(46))
        left.sock.recv(2048)
        with Traffic(left, right) as traffic:
            time.sleep(BEFORE)
            os.kill(Client(LAB).lab().pid, signal.SIGKILL)
            start_in_background(LabOrder(LAB))
            time.sleep(AFTER)
    finally:
        left.close()
        right.close()
    return traffic.gap(), traffic.sent - len(traffic.arrived)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    place = tempfile.mkdtemp(prefix="uml")
    os.environ |= {"XDG_RUNTIME_DIR": place, "XDG_STATE_HOME": place}
    spec = SwitchSpec(LAB, SwitchConfig(), (resolve_listen("daemon", LAB, runtime_directory(LAB)),))
    start_in_background(LabOrder(LAB, (spec,)))
    try:
        results = [measure() for _ in range(rounds)]
        lab = Client(LAB).lab()
        memory = resident_mb(lab.pid), resident_mb(lab.keeper_pid)
    finally:
        Client(LAB).stop()
        shutil.rmtree(place, ignore_errors=True)
    gaps = [gap for gap, _ in results]
    lost = [count for _, count in results]
    print(f"gap in traffic over kill -9 and start, {rounds} rounds, seconds:")
    print(f"  median {statistics.median(gaps):.2f}  ({min(gaps):.2f}-{max(gaps):.2f})")
    print(f"  frames lost of 1000/s: median {statistics.median(lost):.0f}  ({min(lost)}-{max(lost)})")
    print(f"resident memory: daemon {memory[0]:.1f} MB, keeper {memory[1]:.1f} MB")


if __name__ == "__main__":
    main()
