"""Copies of files that stay sparse: holes are no zeros on the disk, and no zeros become one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Iterator

from umlab.guest.holes import DataMap

#: Bytes that are read at a time, and those that are a hole where they all are zero.
_CHUNK, _BLOCK = 1 << 20, 1 << 16
_ZEROS = bytes(_BLOCK)
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
    write_sparse(target, _data_of(source, size), progress, size)


def write_sparse(target: int, parts: Iterable[tuple[int, bytes]], progress: Progress, size: int = 0) -> int:
    """Write parts of a file, leaving out blocks of zeros.

    Args:
        target: A descriptor of an empty file.
        parts: Offset and bytes, in ascending order; in multiples of 64 KiB, but for the last one.
        progress: Is told after each part.
        size: What the file has at least; zeros behind the last part.

    Returns:
        Its bytes.

    Raises:
        OSError: It cannot be written; the disk is full.  Whatever ``parts`` raises.
    """
    end = size
    for offset, data in parts:
        view = memoryview(data)
        for at in range(0, len(data), _BLOCK):
            block = view[at : at + _BLOCK]
            if block != _ZEROS[: len(block)]:
                _write(target, block, offset + at)
        end = max(end, offset + len(data))
        progress(offset + len(data))
    os.ftruncate(target, end)
    return end


def chunks(read: Callable[[int], bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield a stream as the parts that :func:`write_sparse` takes."""
    offset = 0
    rest = bytearray()
    while data := read(_CHUNK):
        rest += data
        whole = len(rest) - len(rest) % _BLOCK
        if whole:
            yield offset, bytes(rest[:whole])
            del rest[:whole]
            offset += whole
    if rest:
        yield offset, bytes(rest)


def _data_of(source: int, size: int) -> Iterator[tuple[int, bytes]]:
    for start, length in DataMap(source).stretches(0, size):
        for at in range(start, start + length, _CHUNK):
            if not (data := os.pread(source, min(_CHUNK, start + length - at), at)):
                return
            yield at, data


def _write(target: int, block: memoryview, offset: int) -> None:
    while block:
        written = os.pwrite(target, block, offset)
        block, offset = block[written:], offset + written
