"""Where a file has data, and where holes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator


class DataMap:
    """A file that is read from its beginning to its end, and the holes in it.

    What was found last is remembered: a file system may go through the rest of the file for the next hole.

    Attributes:
        fd: The file's descriptor.

    Args:
        fd: The file, which does not change.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        # From the first to the second there is a hole, from there to the third data.
        self._hole = self._data = self._end = 0

    def stretches(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches of data: where each begins, and its bytes.

        Args:
            start: Where to begin.
            end: Where to end, which may be behind the file's end.
        """
        at = start
        while at < end:
            if not self._hole <= at < self._end:
                self._look(at, end)
            at = max(at, self._data)
            if at < end:
                yield at, min(self._end, end) - at
            at = self._end

    def _look(self, at: int, end: int) -> None:
        self._hole = at
        try:
            self._data = os.lseek(self.fd, at, os.SEEK_DATA)
            self._end = os.lseek(self.fd, self._data, os.SEEK_HOLE)
        except OSError as error:
            # Behind the last data there are holes; where the file cannot tell, all is data.
            self._data = end if error.errno == errno.ENXIO else at
            self._end = end
