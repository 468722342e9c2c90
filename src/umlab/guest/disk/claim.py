"""Claims on disks by who runs guests with them, from before a guest is there until it has gone.

A kernel locks a disk when it opens it, which a guest may do late or never.  A claim is a lock of another kind
(flock), so that it does not keep out the kernel of the guest that it is for; claimants meet by it.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator

from umlab.errors import LabError
from umlab.guest.disk.file_lock import user_of


@contextlib.contextmanager
def claimed(path: str, *, exclusive: bool) -> Iterator[None]:
    """Have a claim on a disk for the block.

    Args:
        path: The disk, a file or a device.
        exclusive: The guest writes to it; else it is under a COW file.

    Raises:
        LabError: Somebody else has one that does not go with it.
        OSError: It cannot be opened, or not be locked.
    """
    with open(path, "rb") as file, open(path, "rb") as other:
        before = user_of(other.fileno())
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LabError(f"{path} is in use by another run; stop that first") from None
        if before is None and user_of(other.fileno()) is not None:
            # On NFS both kinds are one, and the claim would keep out the kernel: its own lock has to do.
            fcntl.flock(file, fcntl.LOCK_UN)
        yield
