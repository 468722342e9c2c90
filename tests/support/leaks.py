"""What a test left behind: descriptors, threads and processes, as the kernel sees them.

Processes are found as children of this one, and, when they have detached themselves, by a tag that
the test run puts into its environment (``UMLAB_TEST_TAG``).
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from support.deadline import wait_until

TAG_VARIABLE = "UMLAB_TEST_TAG"


@dataclass(frozen=True)
class Holdings:
    """What this process holds at one instant.

    Attributes:
        descriptors: Descriptor to what it refers to.
        threads: Kernel thread ids, native threads included.
        processes: Process id to name; children, and every process that carries the tag.
        groups: Process id to process group.
    """

    descriptors: dict[int, str]
    threads: frozenset[int]
    processes: dict[int, str]
    groups: dict[int, int]


def holdings() -> Holdings:
    """Return what this process holds now."""
    threads = frozenset(map(int, os.listdir("/proc/self/task")))
    processes = _processes()
    return Holdings(
        _descriptors(),
        threads,
        {pid: name for pid, (name, _) in processes.items()},
        {pid: group for pid, (_, group) in processes.items()},
    )


def leaks_since(before: Holdings, grace: float = 3) -> list[str]:
    """Return one line for each thing that is held now and was not before.

    Threads and processes that are just ending get ``grace`` seconds (scaled) to do so.
    """
    found = _difference(before, holdings())
    if not found:
        return []
    gc.collect()

    def nothing_left() -> bool:
        found[:] = _difference(before, holdings())
        return not found

    with contextlib.suppress(TimeoutError):
        wait_until(nothing_left, grace, "nothing is left behind")
    return found


def end_processes(before: Holdings) -> None:
    """Kill what `leaks_since` reported, so that it cannot disturb the tests that follow.

    A whole process group is killed where the process leads or joined another than ours: the programs
    of a guest outlive its main process otherwise.
    """
    own_group = os.getpgrp()
    for pid in holdings().processes.keys() - before.processes.keys():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            group = os.getpgid(pid)
            if group != own_group:
                os.killpg(group, signal.SIGKILL)
            else:
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)


def _difference(before: Holdings, now: Holdings) -> list[str]:
    new_descriptors = now.descriptors.keys() - before.descriptors.keys()
    # A guest that was there before has other processes now and then; they end with its group.
    guests = set(before.groups.values()) - {os.getpgrp()}
    new_processes = {
        pid for pid in now.processes.keys() - before.processes.keys() if now.groups[pid] not in guests
    }
    return [
        *(f"descriptor {fd}: {now.descriptors[fd]}" for fd in sorted(new_descriptors)),
        *(f"thread {tid}: {_thread_name(tid)}" for tid in sorted(now.threads - before.threads)),
        *(f"process {pid}: {now.processes[pid]}" for pid in sorted(new_processes)),
    ]


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        # The descriptor by which the directory itself is read is gone by now.
        with contextlib.suppress(FileNotFoundError):
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
    return found


def _processes() -> dict[int, tuple[str, int]]:
    own = str(os.getpid())
    tag = f"{TAG_VARIABLE}={os.environ[TAG_VARIABLE]}".encode() if TAG_VARIABLE in os.environ else None
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or entry == own:
            continue
        with contextlib.suppress(OSError):
            # pid (name) state parent ...; the name may hold anything, so the last parenthesis counts.
            name, _, rest = Path(f"/proc/{entry}/stat").read_text().partition(" (")[2].rpartition(") ")
            state, parent, group = rest.split()[:3]
            if parent == own or _carries(entry, tag):
                zombie = " (zombie: never waited for)" if state == "Z" else ""
                found[int(entry)] = f"{name}{zombie}", int(group)
    return found


def _carries(pid: str, tag: bytes | None) -> bool:
    with contextlib.suppress(OSError):
        return tag is not None and tag in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return False


def _thread_name(tid: int) -> str:
    try:
        return Path(f"/proc/self/task/{tid}/comm").read_text().strip()
    except OSError:
        return "ended"
