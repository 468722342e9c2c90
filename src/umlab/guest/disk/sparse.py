"""Copies of files that stay sparse: holes are no zeros on the disk, and no zeros become one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator

from umlab.guest.disk.holes import DataMap

#: Bytes that are read at a time, and those that are a hole where they all are zero: a block of the usual
#: file systems.
_CHUNK, _BLOCK = 1 << 20, 4096
_ZEROS = bytes(_CHUNK)
#: Linux include/uapi/linux/fs.h: shares the blocks of two files until one of them is written to.
_FICLONE = 0x40049409

#: Is told how many bytes have been gone through.
Progress = Callable[[int], None]


def copy_file(source: int, target: int, progress: Progress) -> None:
    """Copy a file into an empty one, by reference where the file system can.

    Args:
        source: A descriptor of a regular file or a block device, which is read from its beginning.
        target: A descriptor of an empty one.
        progress: Is told every now and then.

    Raises:
        OSError: It cannot be read or written; the disk is full.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, _FICLONE, source)
        progress(os.fstat(target).st_size)
        return
    # A block device has its size at its end only.
    size = os.lseek(source, 0, os.SEEK_END)
    write_sparse(target, data_of(DataMap(source), 0, size), progress, size)


def write_sparse(target: int, parts: Iterable[tuple[int, bytes]], progress: Progress, size: int = 0) -> int:
    """Write parts of a file, leaving out blocks of zeros.

    Args:
        target: A descriptor of an empty file.
        parts: Offset and bytes, in ascending order.
        progress: Is told after each part.
        size: What the file has at least; zeros behind the last part.

    Returns:
        Its bytes.

    Raises:
        OSError: It cannot be written; the disk is full.  Whatever ``parts`` raises.
    """
    end = size
    for offset, data in parts:
        for at, piece in _without_zeros(data, offset):
            _write(target, piece, at)
        end = max(end, offset + len(data))
        progress(offset + len(data))
    os.ftruncate(target, end)
    return end


def data_of(source: DataMap, start: int, end: int, *, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yield a stretch of a file, without its holes, as the parts that :func:`write_sparse` takes.

    Args:
        source: The file.
        start: Where the stretch begins.
        end: Where it ends, which may be behind the file's end.
        at: Where its beginning belongs.

    Raises:
        OSError: It cannot be read.
    """
    for begin, length in source.stretches(start, end):
        for offset in range(begin, begin + length, _CHUNK):
            data = os.pread(source.fd, min(_CHUNK, begin + length - offset), offset)
            yield offset - start + at, data


def chunks(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield a stream as the parts that :func:`write_sparse` takes."""
    offset = 0
    while data := read(_CHUNK):
        yield offset, data
        offset += len(data)


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


def _write(target: int, data: memoryview, offset: int) -> None:
    while data:
        # A file system that is nearly full takes a part, and says so the next time.
        written = os.pwrite(target, data, offset)
        data, offset = data[written:], offset + written
