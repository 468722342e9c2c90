"""When the parts of a console log were printed: pairs of offset and time, in a file beside it.

The file has entries of 16 bytes in the host's byte order: offset of the first byte, u64; nanoseconds since
1970, u64.  An entry holds until the next one.  When there are too many, every second one goes.
"""

from __future__ import annotations

import logging
import time
from array import array
from bisect import bisect_right
from collections.abc import Callable
from typing import BinaryIO

_log = logging.getLogger(__name__)

#: Entries of one log, 1 MiB of them.
MAX_ENTRIES = 64 * 1024
#: What is printed within one millisecond has one time.
_RESOLUTION = 1_000_000
_ENTRY_SIZE = 16


class LogTimes:
    """The times of one log.

    Args:
        file: Where they are kept, unbuffered, from an earlier process on; belongs to the caller.
        total: Bytes that the log has; what the file knows of later ones is dropped.
        now: The wall clock.
    """

    def __init__(self, file: BinaryIO, total: int = 0, now: Callable[[], int] = time.time_ns) -> None:
        self._file: BinaryIO | None = file
        self._now = now
        self._offsets, self._times = array("Q"), array("Q")
        self._load(file, total)

    def add(self, offset: int) -> None:
        """Take note that what begins at an offset is printed now."""
        now = self._now()
        if self._times and 0 <= now - self._times[-1] < _RESOLUTION:
            return
        self._offsets.append(offset)
        self._times.append(now)
        if len(self._offsets) >= MAX_ENTRIES:
            self._offsets, self._times = self._offsets[::2], self._times[::2]
            self._write(len(self._offsets), rewrite=True)
        else:
            self._write(1)

    def from_offset(self, offset: int, limit: int) -> list[tuple[int, int]]:
        """Return the entry that holds at an offset and those behind it, at most so many."""
        first = max(0, bisect_right(self._offsets, offset) - 1)
        return self._entries(first, limit)

    def since(self, moment: float, limit: int) -> list[tuple[int, int]]:
        """Return the first entry that is not older than a time, and those behind it, at most so many.

        The time is in seconds: what was told in seconds finds its entry again.

        The clock may have been set back since: then older ones may follow.
        """
        first = next((at for at, each in enumerate(self._times) if each / 1e9 >= moment), len(self._times))
        return self._entries(first, limit)

    def _entries(self, first: int, limit: int) -> list[tuple[int, int]]:
        last = first + limit
        return list(zip(self._offsets[first:last], self._times[first:last], strict=True))

    def _load(self, file: BinaryIO, total: int) -> None:
        file.seek(0)
        data = file.read(MAX_ENTRIES * _ENTRY_SIZE)
        entries = array("Q", data[: len(data) // _ENTRY_SIZE * _ENTRY_SIZE])
        for offset, moment in zip(entries[::2], entries[1::2], strict=True):
            # What is not in order was not written by us, or not to its end.
            if offset >= total or (self._offsets and offset <= self._offsets[-1]):
                break
            self._offsets.append(offset)
            self._times.append(moment)
        self._write(len(self._offsets), rewrite=True)

    def _write(self, count: int, *, rewrite: bool = False) -> None:
        if self._file is None:
            return
        data = array("Q")
        for pair in zip(self._offsets[-count:], self._times[-count:], strict=True):
            data.extend(pair)
        try:
            if rewrite:
                self._file.seek(0)
                self._file.truncate()
            self._file.write(data.tobytes() if count else b"")
        except OSError as error:
            _log.warning("a log's times are not written any more: %s", error)
            self._file = None
