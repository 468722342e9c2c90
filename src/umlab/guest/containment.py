"""What keeps a guest's processes from their user's files."""

from __future__ import annotations

import logging
import os
from typing import Literal

from umlab.errors import LabError
from umlab.guest import landlock, mounts
from umlab.guest.cmdline import DiskRoot, GuestSpec, HostRoot
from umlab.guest.rundir import RunDirectory

Means = Literal["landlock", "mounts", "none"]

_log = logging.getLogger(__name__)

#: Devices that a kernel writes to: its null channels and terminals.
_DEVICES = ("/dev/null", "/dev/tty", "/dev/ptmx", "/dev/pts")


def means() -> Means:
    """Return what there is on this host for processes of ours: Landlock, or for root mounts of their own."""
    if landlock.abi() > 0:
        return "landlock"
    return "mounts" if os.geteuid() == 0 and mounts.is_possible() else "none"


def check_containment(spec: GuestSpec) -> None:
    """Refuse, or warn about, a guest that could change the host's files.

    Raises:
        LabError: We are root, and there is nothing that contains it.
    """
    if not spec.landlock:
        _log.warning("guest %s: started without Landlock, it can change its user's files", spec.umid)
    elif means() == "none":
        if os.geteuid() == 0:
            raise LabError(
                f"guest {spec.umid}: this kernel has no Landlock, and mounts of its own are not possible, "
                "so a guest of root could change the whole host; run it as an ordinary user"
            )
        _log.warning("guest %s: this kernel has no Landlock, a guest can change its user's files", spec.umid)


def is_contained(spec: GuestSpec) -> bool:
    """Say whether a guest's processes may write only to the places that it is given."""
    return spec.landlock and means() != "none"


def writable_places(spec: GuestSpec, run: RunDirectory) -> list[str]:
    """Return the files and folders that a contained guest's processes may write to."""
    writable = [run.path, run.memory_path, *(device for device in _DEVICES if os.path.exists(device))]
    if isinstance(spec.root, DiskRoot) and os.path.exists(spec.root.path):
        writable.append(spec.root.path)
    if isinstance(spec.root, HostRoot):
        writable += spec.root.shared
    writable += spec.writable
    return writable


def restrictions(spec: GuestSpec, run: RunDirectory) -> list[str]:
    """Return what the launcher is told before the kernel's command line."""
    writable = writable_places(spec, run)
    return [",".join(_all_means(spec)) if spec.landlock else "none", str(len(writable)), *writable]


def _all_means(spec: GuestSpec) -> list[str]:
    given = (*spec.writable, *(spec.root.shared if isinstance(spec.root, HostRoot) else ()))
    first = means()
    if not any(os.path.isdir(place) for place in given):
        return [first, "attributes"]
    # In a folder that it is given a guest sets modes and times as its user can, and Landlock has no right
    # for these that would keep it from others.
    needs_mounts = first == "landlock" and os.geteuid() == 0 and mounts.is_possible()
    return [first, "mounts"] if needs_mounts else [first]
