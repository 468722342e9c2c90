"""Locks on disk images, which keep out kernels that run on them, and are kept out by these.

A UML kernel locks what it has opened, for writing the file that it writes to and for reading the backing
file of that, unless it is told that they are shared.  Our locks belong to the open file, not to the process:
a second descriptor of the same file may be closed.

Source: Linux arch/um/os-Linux/file.c ``os_lock_file``, fcntl(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct

from umlab.errors import LabError
from umlab.guest.umid import umid_of

#: Of struct flock: type, whence, start, length (to the end of the file) and process.
_FLOCK = struct.Struct("@hhqqi0q")


def lock_file(fd: int, path: str, *, exclusive: bool) -> None:
    """Lock an open file until its descriptor is closed.

    Args:
        fd: Open for writing where the lock is exclusive.
        path: What the file is called, for the message.
        exclusive: Keep out those who read it as well, not only those who write to it.

    Raises:
        LabError: Somebody else has locked it: names the guest, or the program; or no locks are to be had.
    """
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0))
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES):
            raise LabError(f"cannot lock {path}: {error.strerror}") from None
        user = user_of(fd, writing=not exclusive) or "another program"
        raise LabError(f"{path} is in use by {user}; stop that first") from None


def user_of(fd: int, *, writing: bool = False) -> str | None:
    """Say who has locked an open file, or ``None``.

    Args:
        fd: The file.
        writing: Leave out those who only read it.
    """
    kind = fcntl.F_RDLCK if writing else fcntl.F_WRLCK
    query = _FLOCK.pack(kind, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, query)
    found, _, _, _, pid = _FLOCK.unpack(answer)
    if found == fcntl.F_UNLCK:
        return None
    if pid <= 0:
        # A lock like ours names nobody, and neither does one of another process namespace.
        return "another program"
    umid = None
    with contextlib.suppress(OSError):
        umid = umid_of(pid, os.stat(f"/proc/{pid}").st_uid)
    return f"process {pid}" if umid is None else f"guest {umid}, process {pid}"
