"""What one console of a guest has printed: in a file with times beside it, and the latest in memory."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from umlab.daemon.view import LogPiece, LogTime
from umlab.guest.console import TAIL_SIZE, Console
from umlab.guest.log_times import LogTimes


class GuestLog:
    """One console's output.

    Args:
        folder: Where its files are; made if need be.
        stem: Their name: ``STEM.log`` and ``STEM.times``.
        fresh: Begin anew; otherwise go on where an earlier daemon was.

    Attributes:
        console: Takes what is printed.

    Raises:
        OSError: The files cannot be opened.
    """

    def __init__(self, folder: Path, stem: str, *, fresh: bool) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.ExitStack() as on_error:
            self._file = on_error.enter_context(_open(folder / f"{stem}.log", fresh))
            self._times_file = on_error.enter_context(_open(folder / f"{stem}.times", fresh))
            size = os.fstat(self._file.fileno()).st_size
            earlier = os.pread(self._file.fileno(), TAIL_SIZE, max(0, size - TAIL_SIZE))
            self._times = LogTimes(self._times_file, size)
            on_error.pop_all()
        self.console = Console(self._file, earlier=earlier, total=size, times=self._times)

    def read(self, start: int, limit: int) -> LogPiece:
        """Return output from an offset on (negative: from the end), at most so many bytes."""
        total, tail = self.console.total, self.console.tail
        start = max(0, total + start) if start < 0 else min(start, total)
        if start >= total - len(tail):
            data = tail[start - (total - len(tail)) :][:limit]
        else:
            data = os.pread(self._file.fileno(), limit, start)
            if not data:
                # The file has ended, as on a full disk; the latest output is here all the same.
                start = total - len(tail)
                data = tail[:limit]
        return LogPiece(start, start + len(data), data)

    def times(self, start: int, limit: int) -> list[LogTime]:
        """Return when what stands at an offset was printed, and what follows, at most so many entries."""
        return [LogTime(offset, moment / 1e9) for offset, moment in self._times.from_offset(start, limit)]

    def times_since(self, since: float, limit: int) -> list[LogTime]:
        """Return where output begins that is not older than a time, and what follows."""
        return [LogTime(offset, moment / 1e9) for offset, moment in self._times.since(since, limit)]

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        self._times_file.close()


def _open(path: Path, fresh: bool) -> BinaryIO:
    return open(path, "w+b" if fresh else "a+b", buffering=0)
