"""A COW file and its backing file merged into one image.

The image is a new file that gets its name when it is complete, also where it takes the backing file's
place: whatever ends the work, what was there is there as it was.  Holes stay holes, and blocks of zeros
become some.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator

from umlab.errors import LabError
from umlab.guest.disk.cow import (
    Backing,
    CowFile,
    Progress,
    cannot_make,
    chain_problem,
    check_replaceable,
    reading,
)
from umlab.guest.disk.file_lock import lock_file
from umlab.guest.disk.holes import DataMap
from umlab.guest.disk.new_file import new_file
from umlab.guest.disk.sparse import data_of, write_sparse


def merge_cow(
    path: str,
    target: str,
    *,
    backing: str | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> int:
    """Write what a guest sees on a COW disk to a new image.

    Args:
        path: The COW file, which no guest may run on.
        target: The image; mode 0666 before the umask.
        backing: The backing file, where it is another one than the COW file says.
        replace: Whether the image may take the place of another file.
        progress: Told how many bytes are done.

    Returns:
        The image's bytes.

    Raises:
        LabError: The files do not belong together, are in use, or the image cannot be made: nothing is left
            of it, and nothing is lost.
    """
    with CowFile(path) as cow, Backing(backing or cow.backing) as image:
        lock_file(cow.fd, path, exclusive=False)
        lock_file(image.fd, image.path, exclusive=False)
        _check(cow, image)
        if os.path.isfile(target):
            if os.path.samefile(target, path):
                raise LabError(f"{target} is the COW file itself; name another file")
            check_replaceable(target, image)
        with _making(target), new_file(target, replace=replace) as fd:
            return _write(fd, cow, image, progress)


def merge_in_place(
    path: str,
    *,
    backing: str | None = None,
    progress: Progress | None = None,
    done: Callable[[str], None] = lambda _: None,
) -> str:
    """Put a backing file's place an image with what a guest has changed.

    Every COW file of it is of no use after that, this one as well: the backing file was changed.

    Args:
        path: The COW file; no guest may run on it, nor on another one of the same backing file.
        backing: The backing file, where it is another one than the COW file says.
        progress: Told how many bytes are done.
        done: Told the same as our caller, in the moment of it: a signal waits until it has ended.

    Returns:
        The backing file's path, where it is a link what that leads to.

    Raises:
        LabError: The files do not belong together or are in use, the backing file is no plain one or has
            several names, or there is no room for the new one: nothing is changed.
    """
    with CowFile(path) as cow:
        target = os.path.realpath(backing or cow.backing)
        with Backing(target, write=True) as image:
            status = os.fstat(image.fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise LabError(f"{target} is no plain file of one name; merge into a new file")
            # The COW file is only read, so it need not be one that we may write to.
            lock_file(cow.fd, path, exclusive=False)
            lock_file(image.fd, target, exclusive=True)
            _check(cow, image)
            with _making(target), new_file(target, replace=True, done=lambda: done(target)) as fd:
                _write(fd, cow, image, progress)
    return target


def _check(cow: CowFile, image: Backing) -> None:
    """Refuse what would not make an image of what a guest sees."""
    problem = image.mismatch(cow.header, cow.path)
    if problem is not None:
        raise LabError(str(problem))
    if image.is_cow():
        raise LabError(str(chain_problem(image.path)))
    with reading(cow.path):
        cut = cow.cut()
    if cut is not None:
        raise LabError(str(cut))


def _write(fd: int, cow: CowFile, image: Backing, progress: Progress | None) -> int:
    """Write an image, and return its bytes."""
    begun = os.fstat(cow.fd).st_mtime_ns
    size = _size(cow)

    def step(done: int) -> None:
        if progress is not None:
            progress(done, size)

    write_sparse(fd, _parts(cow, image, size), step, size)
    if os.fstat(cow.fd).st_mtime_ns != begun or int(os.fstat(image.fd).st_mtime) != image.mtime:
        raise LabError(f"{cow.path} or {image.path} was changed while they were merged; nothing is changed")
    return size


def _size(cow: CowFile) -> int:
    """Return an image's bytes.

    The kernel's disk ends with a whole sector: where a guest wrote to that, the image does.
    """
    header, end = cow.header, 0
    for first, count in cow.changed():
        end = (first + count) * header.sector_size
    return max(header.size, min(end, cow.length - header.data_offset))


def _parts(cow: CowFile, image: Backing, size: int) -> Iterator[tuple[int, bytes]]:
    """Yield an image's offsets and bytes, without holes, in ascending order."""
    header, at = cow.header, 0
    old, new = DataMap(image.fd), DataMap(cow.fd)
    for first, count in cow.changed():
        start, end = first * header.sector_size, min((first + count) * header.sector_size, size)
        with reading(image.path):
            yield from data_of(old, at, start, at=at)
        with reading(cow.path):
            yield from data_of(new, header.data_offset + start, header.data_offset + end, at=start)
        at = end
    with reading(image.path):
        yield from data_of(old, at, header.size, at=at)


@contextlib.contextmanager
def _making(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_make(path, error) from error
