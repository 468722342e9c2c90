"""Files with commands for the console of a ``vde_switch``."""

from __future__ import annotations

import errno
import os
import stat

_MAX_SCRIPT = 1 << 16

#: Files by device and inode.
Files = tuple[tuple[int, int], ...]


def read_script(path: str) -> tuple[tuple[int, int], bytes]:
    """Return which file it is and what is in it.

    Raises:
        OSError: It cannot be read, is too long or no file.
    """
    # Without waiting, should it be a pipe.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if status.st_size > _MAX_SCRIPT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        return (status.st_dev, status.st_ino), os.read(fd, _MAX_SCRIPT)
    finally:
        os.close(fd)
