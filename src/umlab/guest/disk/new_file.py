"""A new file that is there as a whole or not at all, whatever ends its making.

It is written without a name, so that not even SIGKILL leaves anything of it, and gets its name when all
of it is on the disk.  Where the file system has no files without a name, it has a hidden one; and so has a
complete one for the moment before it takes another file's place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from umlab.guest.disk.undisturbed import undisturbed

#: What a file system says that has no files without a name, and a kernel that does not know them.
_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR}


@contextmanager
def new_file(
    path: str, *, mode: int = 0o666, replace: bool = False, done: Callable[[], None] = lambda: None
) -> Iterator[int]:
    """Yield the descriptor of a file, open for reading and writing, that gets a name after the block.

    Args:
        path: Its name, or where that is a link what that leads to.
        mode: Its permissions, before the umask.
        replace: Whether it may take a plain file's place.  It has that file's owner and permissions then,
            and its time of change is another second, so that whoever knows the file by that sees that it is
            another one.
        done: Is told when it has its name: a signal waits until it has ended.

    Raises:
        FileExistsError: There is something of that name, and it is not to be replaced or is no plain file.
        FileNotFoundError: The name is empty, or its folder is not there.
        IsADirectoryError: It is a directory that would be replaced.
        PermissionError: The file that would be replaced may not be written to.
        OSError: It cannot be made, or its name is a link that leads nowhere; nothing is left of it.
    """
    if not path:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    path = os.path.realpath(path) if replace else os.path.abspath(path)
    before = _replaced(path, replace)
    folder = os.path.dirname(path)
    hidden = os.path.join(folder, f".umlab-{os.urandom(8).hex()}")
    with contextlib.ExitStack() as undo:
        # Nobody may read what is to replace a file before the readers of that are known.
        fd, source = _open(folder, hidden, mode if before is None else 0o600)
        undo.callback(os.close, fd)
        undo.callback(_remove, hidden)
        if before is not None:
            _take_rights(fd, path, before)
        yield fd
        if before is not None:
            _tell_apart(fd, before)
        os.fsync(fd)
        with undisturbed():
            if not replace:
                _link(source, path)
            else:
                if source != hidden:
                    _link(source, hidden)
                os.replace(hidden, path)
            done()
    with contextlib.suppress(OSError):
        # The name is to outlive a power cut as well; who may not open the folder has done what he can.
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _replaced(path: str, replace: bool) -> os.stat_result | None:
    """Return what is known of the file that is to be replaced, ``None`` where the path is free."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if replace and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if replace and stat.S_ISLNK(status.st_mode):
        # All links have been followed that end somewhere.
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
    if not replace or not stat.S_ISREG(status.st_mode):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    if not os.access(path, os.W_OK, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
    return status


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


def _take_rights(fd: int, path: str, before: os.stat_result) -> None:
    """Give a file the owner and the permissions of the one that it replaces."""
    os.fchown(fd, before.st_uid, before.st_gid)
    os.fchmod(fd, stat.S_IMODE(before.st_mode))
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = os.listxattr(path)
    for name in names:
        with contextlib.suppress(OSError):
            os.setxattr(fd, name, os.getxattr(path, name))


def _tell_apart(fd: int, before: os.stat_result) -> None:
    """Set a time of change that differs by a second at least from that of the file that is replaced."""
    now = os.fstat(fd)
    if int(before.st_mtime) == int(now.st_mtime):
        os.utime(fd, ns=(now.st_atime_ns, now.st_mtime_ns + 1_000_000_000))
