"""The system request keys of a User Mode Linux kernel: what each does, and which are known to kill.

Source: Linux drivers/tty/sysrq.c; tried on guests of Linux 6.1 and 6.12.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["KEYS", "SysrqKey", "kills"]


class SysrqKey(NamedTuple):
    """A key.

    Attributes:
        letter: One small letter or digit.
        does: What the kernel does, for people.
        kills: ``guest`` or ``programs`` for what it is known to end, ``""`` for nothing.
    """

    letter: str
    does: str
    kills: str = ""


#: What each level lets through to the console: messages of a lower number.
_LEVELS = (
    "nothing",
    "emergencies",
    "alerts as well",
    "critical conditions as well",
    "errors as well",
    "warnings as well",
    "notices as well",
    "information as well",
    "everything",
    "everything",
)

#: Every key that such a kernel may have, by its letter; keys of other machines are not here.
KEYS = {
    key.letter: key
    for key in (
        *(SysrqKey(str(level), f"let through to the console: {what}") for level, what in enumerate(_LEVELS)),
        SysrqKey("b", "reboot at once, without syncing disks", "guest"),
        SysrqKey("c", "crash: a panic, on purpose", "guest"),
        SysrqKey("d", "show all locks that are held, if the kernel keeps account of them"),
        SysrqKey("e", "send SIGTERM to all programs but init", "programs"),
        SysrqKey("f", "run the killer of the out-of-memory case once", "programs"),
        SysrqKey("h", "list the keys that this kernel has"),
        SysrqKey("i", "send SIGKILL to all programs but init", "programs"),
        SysrqKey("j", "thaw file systems that were frozen"),
        SysrqKey("m", "show memory"),
        SysrqKey("n", "make real-time programs normal ones"),
        SysrqKey("o", "power off at once, without syncing disks", "guest"),
        SysrqKey("p", "show registers and flags"),
        SysrqKey("q", "show high-resolution timers"),
        SysrqKey("s", "sync all mounted file systems"),
        SysrqKey("t", "show all tasks with their stacks; kills a guest of Linux 6.1", "guest"),
        SysrqKey("u", "remount all file systems read-only"),
        SysrqKey("w", "show tasks that are blocked in the kernel"),
    )
}


def kills(letter: str, release: str = "") -> bool:
    """Say whether a key is known to end a guest or its programs.

    Args:
        letter: The key.
        release: The guest's kernel, such as ``6.12.3``; empty where it is not known.
    """
    if letter == "t":
        return not release or re.match(r"6\.1\b", release) is not None
    return letter in KEYS and KEYS[letter].kills != ""
