"""Where guests' memory comes from: a file that must be executable, on a file system with room.

Source: Linux arch/um/os-Linux/mem.c.
"""

from __future__ import annotations

import mmap
import os
import tempfile

from umlab.guest.rundir import memory_parent
from umlab.lab.doctor.finding import Status, Subject, Verdict

#: Memory of a guest that names none.
_GUEST_MIB = 128
_FEWEST_GUESTS = 2
_PAGE = mmap.PAGESIZE


def check_executable(_subject: Subject) -> Verdict:
    """Map a file as a kernel maps its memory: shared, writable, executable."""
    parent = memory_parent()
    try:
        with tempfile.TemporaryFile(dir=parent) as file:
            os.posix_fallocate(file.fileno(), 0, _PAGE)
            protection = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
            try:
                mmap.mmap(file.fileno(), _PAGE, mmap.MAP_SHARED, protection).close()
            except OSError as error:
                return Verdict(
                    Status.FAIL,
                    f"files in {parent} cannot be mapped executable ({error.strerror}): guests do not boot",
                    f"as root: mount -o remount,exec {_mount_point(parent)}; "
                    "or set TMPDIR to a folder of a file system that is mounted without noexec",
                )
    except OSError as error:
        return Verdict(
            Status.FAIL,
            f"no memory file can be made in {parent}: {error.strerror}",
            "make room there, or set TMPDIR to a folder that you may write to",
        )
    return Verdict(Status.OK, f"{parent} has files that can be mapped executable")


def check_room(_subject: Subject) -> Verdict:
    """Count the guests for which there is memory, and room for their memory files."""
    parent = memory_parent()
    room = os.statvfs(parent)
    return judge_room(_available_kib() >> 10, room.f_bavail * room.f_frsize >> 20, parent)


def judge_room(available: int, free: int, parent: str) -> Verdict:
    """Say whether two guests fit, which is the least of a lab.

    Args:
        available: MiB of memory that programs can have.
        free: MiB of the file system where memory files go.
        parent: Where that is.
    """
    guests = min(available, free) // _GUEST_MIB
    detail = (
        f"room for about {guests} guests of {_GUEST_MIB} MiB: "
        f"{available} MiB of memory available, {free} MiB free in {parent}"
    )
    if guests >= _FEWEST_GUESTS:
        return Verdict(Status.OK, detail)
    fix = "end other programs" if available <= free else "make room there, or set TMPDIR to a larger place"
    return Verdict(Status.WARN if guests else Status.FAIL, detail, f"{fix}, or give guests less memory")


def _available_kib() -> int:
    with open("/proc/meminfo") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))


def _mount_point(path: str) -> str:
    path = os.path.realpath(path)
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    return path
