"""Mounts of a process's own, all read-only but a few places: what root can do where Landlock is not enough.

Neither files nor their attributes can be changed through a mount that is read-only, but devices can be
written to, so mounts have no devices either, unless something else keeps these.
Who has given up its capabilities cannot undo it.  Imports nothing heavy: the launcher loads it just before it
becomes the guest.

Source: Linux include/uapi/linux/mount.h, mount_setattr(2), mount_namespaces(7), fs/namespace.c.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from umlab.guest.syscall import checked, system_call

_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_CLONE_NEWNS = 0x20000
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_MOUNT_F_EMPTY_PATH = 4
_MS_PRIVATE = 1 << 18
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NODEV = 1, 4
_CAP_SYS_ADMIN = 21
#: Devices that can be read, and written to, without harm.
_DEVICES = ("/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def is_possible() -> bool:
    """Say whether this process may have mounts of its own and the running kernel can make them read-only."""
    system_call(_SYS_MOUNT_SETATTR, -1, b"", 0, None, 0)
    if ctypes.get_errno() == errno.ENOSYS:
        return False
    with open("/proc/self/status") as file:
        effective = next(line.split()[1] for line in file if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def restrict_writes(writable: list[str], *, devices: bool) -> None:
    """Have this process and what it starts change files only at and below the named places.

    Reading and executing stay possible everywhere, and so does connecting to unix sockets.

    Args:
        writable: Files and directories; all must exist.
        devices: Leave all devices there; else only those can be opened that are named, or harmless.

    Raises:
        OSError: It is not possible, or a place does not exist.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    checked(libc.unshare(_CLONE_NEWNS), "have mounts of its own")
    _set_attributes(_MountAttr(propagation=_MS_PRIVATE), "separate the mounts")
    named = writable if devices else [*writable, *filter(os.path.exists, _DEVICES)]
    # What is mounted below a place comes along and stays as it is; an outer place comes before an inner one.
    # A device needs no mount where devices are left, and /dev/ptmx alone on one does not find its terminals.
    paths = sorted({os.path.realpath(path) for path in named if not (devices and _is_device(path))})
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    trees = []
    for path in paths:
        tree = system_call(_SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
        trees.append((path, checked(tree, f"keep {path} writable")))
    taken = _MOUNT_ATTR_RDONLY | (0 if devices else _MOUNT_ATTR_NODEV)
    _set_attributes(_MountAttr(taken), "make the mounts read-only")
    for path, tree in trees:
        place = os.fsencode(path)
        moved = system_call(_SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, place, _MOVE_MOUNT_F_EMPTY_PATH)
        checked(moved, f"keep {path} writable")
        os.close(tree)
    # Where we are may be in one of them.
    os.chdir(os.getcwd())


def _is_device(path: str) -> bool:
    return stat.S_ISCHR(os.stat(path).st_mode)


def _set_attributes(attributes: _MountAttr, what: str) -> None:
    size = ctypes.sizeof(attributes)
    done = system_call(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, ctypes.byref(attributes), size)
    checked(done, what)
