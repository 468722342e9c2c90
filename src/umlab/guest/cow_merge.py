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
from umlab.guest.cow import (
    CHUNK,
    Backing,
    CowFile,
    Progress,
    cannot_make,
    chain_problem,
    check_replaceable,
    reading,
)
from umlab.guest.file_lock import lock_file
from umlab.guest.holes import DataMap
from umlab.guest.new_file import new_file

#: What is left out as a whole where it is zeros: a block of the usual file systems.
_BLOCK = 4096
_ZEROS = bytes(CHUNK)


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


def merge_in_place(path: str, *, backing: str | None = None, progress: Progress | None = None) -> str:
    """Put a backing file's place an image with what a guest has changed.

    Every COW file of it is of no use after that, this one as well: the backing file was changed.

    Args:
        path: The COW file; no guest may run on it, nor on another one of the same backing file.
        backing: The backing file, where it is another one than the COW file says.
        progress: Told how many bytes are done.

    Returns:
        The backing file's path, where it is a link what that leads to.

    Raises:
        LabError: The files do not belong together or are in use, the backing file is no plain one or has
            several names, or there is no room for the new one: nothing is changed.
    """
    with CowFile(path, write=True) as cow:
        target = os.path.realpath(backing or cow.backing)
        with Backing(target, write=True) as image:
            status = os.fstat(image.fd)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
                raise LabError(f"{target} is no plain file of one name; merge into a new file")
            lock_file(cow.fd, path, exclusive=True)
            lock_file(image.fd, target, exclusive=True)
            _check(cow, image)
            with _making(target), new_file(target, replace=True) as fd:
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
    header = cow.header
    # The kernel's disk ends with a whole sector: where a guest wrote to that, the image does.
    room = max(header.size, min(header.sectors * header.sector_size, cow.length - header.data_offset))
    begun = os.fstat(cow.fd).st_mtime_ns

    def step(done: int) -> None:
        if progress is not None:
            progress(done, room)

    at = 0
    old, new = _Source(image), _Source(cow)
    os.truncate(fd, room)
    for first, count in cow.changed():
        start, end = first * header.sector_size, min((first + count) * header.sector_size, room)
        _copy(old, at, fd, at, start - at, step)
        _copy(new, header.data_offset + start, fd, start, end - start, step)
        at = end
    if at < header.size:
        _copy(old, at, fd, at, header.size - at, step)
    size = max(at, header.size)
    os.truncate(fd, size)
    if os.fstat(cow.fd).st_mtime_ns != begun or int(os.fstat(image.fd).st_mtime) != image.mtime:
        raise LabError(f"{cow.path} or {image.path} was changed while they were merged; nothing is changed")
    return size


class _Source:
    """A file that is copied from."""

    def __init__(self, file: CowFile | Backing) -> None:
        self.path, self.fd, self.data = file.path, file.fd, DataMap(file.fd)


def _copy(
    source: _Source, begin: int, target: int, to: int, length: int, step: Callable[[int], None]
) -> None:
    """Copy a stretch of a file without its holes and blocks of zeros into one that is all hole."""
    for at, size in source.data.stretches(begin, begin + length):
        for offset in range(at, at + size, CHUNK):
            with reading(source.path):
                data = os.pread(source.fd, min(CHUNK, at + size - offset), offset)
            place = offset - begin + to
            for start, piece in _without_zeros(data, place):
                _write_all(target, piece, start)
            step(place + len(data))


def _without_zeros(data: bytes, offset: int) -> Iterator[tuple[int, memoryview]]:
    """Yield what is to be written of some bytes that belong at an offset."""
    if data == _ZEROS[: len(data)]:
        return
    view = memoryview(data)
    begin = at = 0
    while at < len(data):
        end = min(at + _BLOCK - (offset + at) % _BLOCK, len(data))
        if view[at:end] == _ZEROS[: end - at]:
            if at > begin:
                yield offset + begin, view[begin:at]
            begin = end
        at = end
    if at > begin:
        yield offset + begin, view[begin:at]


def _write_all(fd: int, data: memoryview, offset: int) -> None:
    while data:
        # A file system that is nearly full takes a part, and says so the next time.
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written


@contextlib.contextmanager
def _making(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise cannot_make(path, error) from error
