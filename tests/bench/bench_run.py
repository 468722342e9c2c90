"""What one command in one kernel costs: `umlab run`, a command in a running guest, files in and out.

Run as ``python tests/bench/bench_run.py [--rounds N]``.  A cold run finds the kernel, busybox and Python on
the disk only; a warm one finds them in memory.  A copy goes through a command's input or output.  Idle is
what our processes use while a guest sleeps, in percent of a core.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from measure.process import cpu_seconds

from umlab.guest.agent import Agent
from umlab.guest.cmdline import DEFAULT_KERNEL, GuestSpec, HostRoot
from umlab.guest.module import MODULES_ROOT
from umlab.guest.process import Guest
from umlab.guest.root import find_busybox
from umlab.guest.script import command_script
from umlab.guest.session import FILE_PIECE, Request

UMLAB = str(Path(sys.executable).with_name("umlab"))
SOURCE = Path(__file__).parents[2] / "src"
#: Bytes of a copy, and seconds for which a guest idles.
SIZE, IDLE = 100_000_000, 5.0
EXECS = 50


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


async def copy_rates(agent: Agent) -> tuple[float, float]:
    """Return MB/s into a guest and out of it."""
    data = memoryview(bytes(SIZE))
    begin = time.monotonic()
    session = await agent.open(Request(command_script(["sh", "-c", "cat >/tmp/copy"]), "pipe"))
    for at in range(0, SIZE, FILE_PIECE):
        await session.write(data[at : at + FILE_PIECE])
    await session.end_input()
    assert await session.wait() == 0
    into = SIZE / 1e6 / (time.monotonic() - begin)
    agent.release(session)
    begin = time.monotonic()
    session = await agent.open(Request(command_script(["cat", "/tmp/copy"])))
    size = 0
    while piece := await session.read_output():
        size += len(piece)
    assert size == SIZE
    agent.release(session)
    return into, SIZE / 1e6 / (time.monotonic() - begin)


async def measure_agent(base: str) -> tuple[list[float], float, float]:
    """Return the seconds of each command in a running guest, and MB/s into it and out of it."""
    spec = GuestSpec("bench", memory=512 << 20, root=HostRoot())
    guest = await Guest.start(spec, base)
    try:
        await guest.ready(60)
        times = []
        for _ in range(EXECS):
            begin = time.monotonic()
            await guest.agent.run("exit 0", 10)
            times.append(time.monotonic() - begin)
        return times, *await copy_rates(guest.agent)
    finally:
        await guest.stop(term_timeout=0)


def print_seconds(what: str, times: list[float]) -> None:
    print(f"{what:34} median {statistics.median(times):6.3f} s  ({min(times):.3f}-{max(times):.3f})")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), SOURCE]
    cold, warm = [], []
    for _ in range(rounds):
        forget([DEFAULT_KERNEL, MODULES_ROOT, find_busybox(), *python])
        cold.append(run_seconds())
        warm.append(run_seconds())
    print_seconds(shlex.join(["umlab", "run", "--", "true"]) + ", cold", cold)
    print_seconds(shlex.join(["umlab", "run", "--", "true"]) + ", warm", warm)
    with tempfile.TemporaryDirectory(prefix="uml") as base:
        times, into, out = asyncio.run(measure_agent(base))
    print_seconds("a command in a running guest", times)
    print(f"{'copy of 100 MB':34} in {into:.0f} MB/s, out {out:.0f} MB/s")
    print(f"{'our processes while a guest idles':34} {idle_percent():.2f} % of a core")


if __name__ == "__main__":
    main()
