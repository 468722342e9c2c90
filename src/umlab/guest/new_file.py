"""A new file that is there as a whole or not at all, whatever ends its making.

It is written without a name, so that not even SIGKILL leaves anything of it, and gets its name when all
of it is on the disk.  Where the file system has no files without a name, it has a hidden one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

#: What a file system says that has no files without a name, and a kernel that does not know them.
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR}


@contextmanager
def new_file(path: str, *, mode: int = 0o666, replace: bool = False) -> Iterator[int]:
    """Yield the descriptor of a file, open for reading and writing, that gets a name after the block.

    Args:
        path: Its name, or where that is a link what that leads to.
        mode: Its permissions, before the umask.
        replace: Whether it may take a plain file's place.  Its time of change is another second than that
            file's then, so that whoever knows the file by that sees that it is another one.

    Raises:
        FileExistsError: There is something of that name, and it is not to be replaced or is no plain file.
        IsADirectoryError: It is a directory that would be replaced.
        OSError: It cannot be made; nothing is left of it.
    """
    path = os.path.realpath(path) if replace else os.path.abspath(path)
    _check_free(path, replace)
    folder = os.path.dirname(path)
    hidden = os.path.join(folder, f".umlab-{os.urandom(8).hex()}")
    with contextlib.ExitStack() as undo:
        fd, source = _open(folder, hidden, mode)
        undo.callback(os.close, fd)
        undo.callback(_remove, hidden)
        yield fd
        if replace:
            _tell_apart(fd, path)
        os.fsync(fd)
        if not replace:
            _link(source, path)
        else:
            if source != hidden:
                _link(source, hidden)
            os.replace(hidden, path)
    with contextlib.suppress(OSError):
        # The name is to outlive a power cut as well; who may not open the folder has done what he can.
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _check_free(path: str, replace: bool) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if replace and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not replace or not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def _open(folder: str, hidden: str, mode: int) -> tuple[int, str]:
    """Open a new file, and return its descriptor and a path that leads to it."""
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
    except OSError as error:
        if error.errno not in _NO_UNNAMED:
            raise
        return os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode), hidden
    return fd, f"/proc/self/fd/{fd}"


def _link(source: str, path: str) -> None:
    # Only with a directory's descriptor does Python follow the link that the source may be.
    os.link(source, path, src_dir_fd=-1, follow_symlinks=True)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _tell_apart(fd: int, path: str) -> None:
    """Set a time of change that differs by a second at least from that of the file that is replaced."""
    with contextlib.suppress(FileNotFoundError):
        before, now = int(os.stat(path).st_mtime), os.fstat(fd)
        if before == int(now.st_mtime):
            os.utime(fd, ns=(now.st_atime_ns, now.st_mtime_ns + 1_000_000_000))
