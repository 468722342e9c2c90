"""Which boot of a guest a process is.

A guest that reboots executes its kernel anew in the same process: pid and start time stay.  What is new
is its memory, a file without a name that UML holds open, on its lowest descriptor beside standard input
and output, which may be anything.  Inode numbers are given again at once on some file systems (ext4), so
the file's birth counts as well.

Source: Linux arch/um/os-Linux/mem.c; include/uapi/linux/stat.h ``struct statx``.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import stat
import struct
from typing import NamedTuple

#: A guest's memory is never smaller; other deleted files of a process may be.
_MIN_MEMORY = 1 << 20
#: What its descriptor is shown as: O_TMPFILE, or mkstemp(3) where the file system has none.
_MEMORY_NAME = re.compile(r"(#[0-9]+|vm_file-[0-9A-Za-z]{6}) \(deleted\)")
_STANDARD = ("0", "1", "2")
#: Descriptors that are looked at: another program may have very many.
_MAX_DESCRIPTORS = 256
_AT_FDCWD, _STATX_BTIME, _STATX_SIZE = -100, 0x800, 256
#: stx_mask u32 at 0, stx_btime at 80: seconds i64, nanoseconds u32.
_BTIME = struct.Struct("=I76xqI")


class Boot(NamedTuple):
    """What tells the boots of one process apart: the identity of its memory file.

    Attributes:
        inode: Its inode number.
        born_ns: When it was made, in nanoseconds since 1970; 0 where the file system does not say.
    """

    inode: int
    born_ns: int


def boot_of(pid: int) -> Boot | None:
    """Return the present boot of a guest's main process.

    Returns:
        ``None`` for other programs, and where ``/proc`` does not let us look.
    """
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        # Listed in ascending order.
        for entry in itertools.islice(descriptors, _MAX_DESCRIPTORS):
            if entry.name not in _STANDARD and (boot := _memory_file(entry.path)) is not None:
                return boot
    return None


def _memory_file(link: str) -> Boot | None:
    # The process lives on meanwhile and may have closed this one.
    with contextlib.suppress(OSError):
        if _MEMORY_NAME.fullmatch(os.path.basename(os.readlink(link))):
            status = os.stat(link)
            if stat.S_ISREG(status.st_mode) and status.st_size >= _MIN_MEMORY:
                return Boot(status.st_ino, _birth_ns(link))
    return None


def _birth_ns(path: str) -> int:
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    try:
        failed = ctypes.CDLL(None).statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, buffer)
    except AttributeError:
        return 0
    mask, seconds, nanoseconds = _BTIME.unpack_from(buffer)
    return 0 if failed or not mask & _STATX_BTIME else seconds * 1_000_000_000 + nanoseconds
