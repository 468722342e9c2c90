"""Terminals that a guest's kernel has opened itself: ``con4=pty`` makes it open a pseudo terminal.

The kernel says which one it is.  It is believed only where that guest's main process holds the other side:
a guest could name the terminal of somebody else, whose keys its viewers would take.
"""

from __future__ import annotations

import contextlib
import os
import re
import tty
from pathlib import Path

from umlab.errors import StateError

_LINE = re.compile(r"(con|ssl)(\d{1,2})")
_PTS = re.compile(r"pts:/dev/pts/(\d{1,9})")


def device_of(line: str) -> str | None:
    """Return the name that a line has in the guest, such as ``tty4`` for ``con4``; ``None`` if it is none."""
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    return f"{'tty' if match[1] == 'con' else 'ttyS'}{int(match[2])}"


def open_line(pid: int, setting: str) -> int:
    """Open the pseudo terminal of a line.

    Args:
        pid: The guest's main process.
        setting: What its kernel says that the line is.

    Returns:
        The side that is not the guest's, raw; belongs to the caller.

    Raises:
        StateError: It is none that is open, or not this guest's.
        OSError: It cannot be opened.
    """
    match = _PTS.fullmatch(setting)
    if match is None or int(match[1]) not in _pseudo_terminals(pid):
        raise StateError("the guest has no terminal open there")
    fd = os.open(f"/dev/pts/{int(match[1])}", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        tty.setraw(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _pseudo_terminals(pid: int) -> set[int]:
    """Return the numbers of those whose master side a process holds."""
    found = set()
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fdinfo").iterdir():
            with contextlib.suppress(OSError):
                if match := re.search(r"^tty-index:\s*(\d+)$", path.read_text(), re.MULTILINE):
                    found.add(int(match[1]))
    return found
