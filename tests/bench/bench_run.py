"""What one command in one kernel costs: `umlab run`, a command in a running guest, files in and out.

Run as ``python tests/bench/bench_run.py``.  A cold run finds the kernel, busybox and Python on the disk only;
a warm one finds them in memory.  Commands and copies go through a lab daemon's API; a copy is a command's
input or output.  Idle is what our processes use while a guest sleeps.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from measure import command, machine, report
from measure.lab import running_lab
from measure.process import cpu_seconds
from measure.rounds import Comparison, compare

from umlab.client import Client
from umlab.guest.cmdline import DEFAULT_KERNEL, GuestSpec, HostRoot
from umlab.guest.inside.root import find_busybox
from umlab.guest.kernel.module import MODULES_ROOT

UMLAB = str(Path(sys.executable).with_name("umlab"))
SOURCE = Path(__file__).parents[2] / "src"
LAB, GUEST = "bench", "guest"
#: Bytes of a copy, seconds for which a guest idles, and commands in a round.
SIZE, IDLE, EXECS = 60_000_000, 5.0, 20
#: Seconds between two commands of somebody who types.
PAUSE = 0.2


def forget(places: Iterable[str | Path]) -> None:
    """Have the host give up what it keeps in memory of all files in some places, as far as nobody uses it."""
    for place in map(Path, places):
        for path in [place] if place.is_file() else place.rglob("*"):
            if path.is_file():
                fd = os.open(path, os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(fd)


def run_seconds() -> float:
    """Return how long a run takes that does nothing."""
    begin = time.monotonic()
    subprocess.run([UMLAB, "run", "--", "true"], stdin=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def own_processes(pid: int) -> list[int]:
    """Return a run's process and its children that are not the guest's."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    threads = [
        each
        for path in Path(f"/proc/{pid}/task").iterdir()
        for each in (path / "children").read_text().split()
    ]
    names = {int(each): Path(f"/proc/{each}/comm").read_text().strip() for each in {*children, *threads}}
    return [pid, *(each for each, name in names.items() if name != "linux")]


def idle_percent() -> float:
    """Return what a run's processes use while its command sleeps, in percent of a core."""
    with subprocess.Popen(
        [UMLAB, "run", "--", "sh", "-c", "echo; exec sleep 1000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # The guest's shell says that the command was ended.
        stderr=subprocess.DEVNULL,
    ) as run:
        assert run.stdout is not None
        run.stdout.readline()
        processes = own_processes(run.pid)
        begin = sum(map(cpu_seconds, processes))
        time.sleep(IDLE)
        used = sum(map(cpu_seconds, processes)) - begin
        run.terminate()
    return used / IDLE * 100


def commands(client: Client, pause: float) -> dict[str, float]:
    """Return how long a command takes that does nothing, in milliseconds."""
    times = []
    for _ in range(EXECS):
        time.sleep(pause)
        begin = time.monotonic()
        assert client.exec(GUEST, ["true"]).status == 0
        times.append((time.monotonic() - begin) * 1e3)
    return {"time": statistics.median(times), "worst": max(times)}


def copy(client: Client, inwards: bool) -> dict[str, float]:
    """Return the rate of a copy into a file of the guest's, or out of one, in MB/s."""
    begin = time.monotonic()
    if inwards:
        assert client.exec(GUEST, ["sh", "-c", "cat >/tmp/copy"], input=bytes(SIZE)).status == 0
    else:
        assert client.exec(GUEST, ["cat", "/tmp/copy"]).stdout == bytes(SIZE)
    return {"rate": SIZE / 1e6 / (time.monotonic() - begin)}


def cold_run() -> Mapping[str, float]:
    """Return how long a run takes, in seconds, of which the host has nothing in memory."""
    forget([DEFAULT_KERNEL, MODULES_ROOT, find_busybox(), sysconfig.get_path("stdlib"), SOURCE])
    forget([sysconfig.get_path("purelib")])
    return {"time": run_seconds()}


@contextlib.contextmanager
def guest_of_a_lab() -> Iterator[Client]:
    """Run a daemon and a guest on the host's own files."""
    with running_lab(LAB, []) as lab, lab.client() as client:
        client.put_guest(GuestSpec(GUEST, memory=512 << 20, root=HostRoot()))
        commands(client, 0)
        yield client


def comparisons(rounds: int, only: str) -> Iterator[Comparison]:
    """Compare what was asked for."""
    if only in "run":
        yield compare(
            "run",
            "`umlab run -- true`",
            {"time": "s"},
            {"warm": lambda: {"time": run_seconds()}, "cold": cold_run},
            rounds,
        )
    if only in "idle":
        yield compare(
            "idle",
            "Our processes while a guest sleeps",
            {"cpu": "% of a processor"},
            {"umlab run": lambda: {"cpu": idle_percent()}},
            rounds,
        )
    if only in "exec" or only in "copy":
        with guest_of_a_lab() as client:
            yield compare(
                "exec",
                f"`true` in a running guest, {EXECS} times",
                {"time": "ms", "worst": "ms"},
                {
                    f"every {PAUSE:g} s": lambda: commands(client, PAUSE),
                    "one after the other": lambda: commands(client, 0),
                },
                rounds,
            )
            yield compare(
                "copy",
                f"{SIZE // 1_000_000} MB of a command's",
                {"rate": "MB/s"},
                {"input": lambda: copy(client, True), "output": lambda: copy(client, False)},
                rounds,
            )


def main() -> None:
    """Measure."""
    options = command.parser("Measure one command in one kernel.").parse_args()
    facts = machine.facts()
    report.write("run", facts, list(comparisons(1 if options.quick else options.rounds, options.only or "")))


if __name__ == "__main__":
    main()
