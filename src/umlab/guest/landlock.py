"""Landlock: take from this process, for ever, the right to change files outside a few named places.

It also keeps a Landlock domain's processes from signalling others where the kernel can (ABI 6).
Imports nothing heavy: the launcher loads it just before it becomes the guest.

Source: Linux Documentation/userspace-api/landlock.rst, include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat

from umlab.guest.syscall import checked, system_call

_SYS_CREATE_RULESET, _SYS_ADD_RULE, _SYS_RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_SCOPE_SIGNAL = 1 << 1

_WRITE_FILE = 1 << 1
_TRUNCATE = 1 << 14
_IOCTL_DEV = 1 << 15
#: What may be done with a file itself, as opposed to a directory's entries.
_ON_FILE = _WRITE_FILE | _TRUNCATE | _IOCTL_DEV
#: REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, MAKE_DIR, MAKE_REG, MAKE_SOCK, MAKE_FIFO, MAKE_BLOCK, MAKE_SYM.
_ON_ENTRIES = sum(1 << bit for bit in range(4, 13))
_MAKE_DEVICES = 1 << 6 | 1 << 11
_REFER = 1 << 13


class _RulesetAttr(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def abi() -> int:
    """Return the Landlock version that the running kernel offers, 0 for none."""
    return max(0, system_call(_SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION))


def restrict_writes(writable: list[str]) -> None:
    """Allow this thread and what it starts to change files only at and below the named places.

    Reading and executing stay allowed everywhere, and so does connecting to unix sockets.  Opening a
    device to write to it, or to control it, counts as a change of the device's file.  NO_NEW_PRIVS must
    be set.

    Args:
        writable: Files and directories; all must exist.

    Raises:
        OSError: There is no Landlock, or a place does not exist.
    """
    version = abi()
    if version < 1:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock")
    handled = _WRITE_FILE | _ON_ENTRIES
    handled |= _REFER if version >= 2 else 0
    handled |= _TRUNCATE if version >= 3 else 0
    handled |= _IOCTL_DEV if version >= 5 else 0
    attr = _RulesetAttr(handled, 0, _SCOPE_SIGNAL if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = checked(
        system_call(_SYS_CREATE_RULESET, ctypes.byref(attr), size, 0), "create a ruleset of Landlock"
    )
    for path in writable:
        _allow(ruleset, path, handled)
    checked(system_call(_SYS_RESTRICT_SELF, ruleset, 0), "restrict the process by Landlock")
    os.close(ruleset)


def _allow(ruleset: int, path: str, handled: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = handled & ~_MAKE_DEVICES if stat.S_ISDIR(os.fstat(place).st_mode) else handled & _ON_FILE
        rule = _PathBeneathAttr(rights, place)
        checked(
            system_call(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0),
            f"allow {path} by Landlock",
        )
    finally:
        os.close(place)
