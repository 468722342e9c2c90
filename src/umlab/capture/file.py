"""Files of a capture: always whole blocks, whatever happens to the disk, with exact counts in place.

A file is a section of pcapng.  Every Interface Description Block is followed at once by an Interface
Statistics Block that is written over, at its place, whenever the counts change: that needs no room on the
disk.  What cannot be written is cut back to the last whole block and kept until it can be.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from umlab.capture.block import count_packets, whole_blocks
from umlab.capture.order import CaptureRequest
from umlab.capture.section import Section, Subject
from umlab.engine.contract import CaptureCount
from umlab.errors import CaptureError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
#: Frames are nobody else's business.
_MODE = 0o600
_NONE = CaptureCount()
_NOTHING: Mapping[int, int] = {}

#: Blocks as they came.
Blocks = bytes | memoryview


class _File:
    """One file.  What is ``pending`` comes next in it and is not written yet."""

    def __init__(self, path: str, subject: Subject) -> None:
        self.path = path
        self._fd = _open(path)
        self._section = Section(subject)
        #: Bytes that are written: whole blocks.
        self.size = 0
        self.pending: Blocks = self._section.header()
        #: Where the statistics of each interface are.
        self._statistics: list[int] = []

    def add(self, blocks: Blocks, ports: Sequence[int]) -> None:
        """Have blocks follow, and before them what describes the interfaces that are new.

        They have to be there until all is written, or `keep` has been called.
        """
        parts = [self.pending] if self.pending else []
        end = self.size + len(self.pending)
        for description in self._section.describe(ports):
            number = len(self._statistics)
            # Written over before long.
            statistics = self._section.statistics(number, _NONE)
            parts += (description, statistics)
            self._statistics.append(end + len(description))
            end += len(description) + len(statistics)
        self.pending = b"".join([*parts, blocks]) if parts else blocks

    def flush(self) -> None:
        """Write what is pending.

        Raises:
            OSError: Some of it is left; the file ends with a whole block.
        """
        written = 0
        try:
            while written < len(self.pending):
                written += os.pwrite(self._fd, memoryview(self.pending)[written:], self.size + written)
        except OSError:
            whole = whole_blocks(self.pending, written)
            os.ftruncate(self._fd, self.size + whole)
            self.size += whole
            self.pending = self.pending[whole:]
            raise
        self.size += written
        self.pending = b""

    def keep(self) -> None:
        """Make what is pending independent of what it was given as."""
        self.pending = bytes(self.pending)

    def write_statistics(self, counts: Mapping[int, CaptureCount]) -> None:
        """Write counts over those that are there.  Raises OSError."""
        for number, (port_no, place) in enumerate(zip(self._section.ports, self._statistics, strict=True)):
            block = self._section.statistics(number, counts.get(port_no, _NONE))
            if place + len(block) <= self.size:
                os.pwrite(self._fd, block, place)

    def close(self) -> None:
        os.close(self._fd)


class CaptureFiles:
    """The files of one capture, one after the other; one thread at a time uses them.

    Args:
        request: What was asked for; has ``file``.
        subject: What is captured.
        ports: Tells the port numbers in the order of the interfaces that packets name.
        counts: Tells what has become of each port's frames since the capture began.

    Attributes:
        number: How many files there have been.
        unwritten: Packets that were given, or were left, and are in no file; known at the end.

    Raises:
        CaptureError: The first file cannot be had; nothing is left of it.
    """

    def __init__(
        self,
        request: CaptureRequest,
        subject: Subject,
        ports: Callable[[], Sequence[int]],
        counts: Callable[[], Mapping[int, CaptureCount]],
    ) -> None:
        assert request.file is not None
        self._request, self._subject = request, subject
        self._ports, self._counts = ports, counts
        self.number = 0
        self.unwritten = 0
        self._write_problem = self._open_problem = ""
        self._kept: deque[str] = deque()
        self._size_before = 0
        #: When the first packet of the present file came.
        self._begun_at = 0.0
        #: Of a capture that has several files: the packets of each port that are in the present one, and
        #: what earlier ones have told of frames that were lost, or not accepted.
        self._packets: Counter[int] = Counter()
        self._lost_before: Counter[int] = Counter()
        self._refused_before: Counter[int] = Counter()
        path = self._next_path()
        is_new = not os.path.exists(path)
        self._file = self._open(path)
        try:
            self._file.add(b"", ports())
            self._file.flush()
        except OSError as error:
            self._file.close()
            if is_new:
                os.unlink(path)
            raise CaptureError(f"cannot write to {path}: {error.strerror}") from None

    @property
    def path(self) -> str:
        """The file that is written to."""
        return self._file.path

    @property
    def size(self) -> int:
        """Bytes that are written, of all files."""
        return self._size_before + self._file.size

    @property
    def problem(self) -> str:
        """Why nothing can be written now, or why the next file has not begun; empty if all is well."""
        return self._write_problem or self._open_problem

    @property
    def is_blocked(self) -> bool:
        """Whether something waits that could not be written: to be tried again before there is more."""
        return bool(self._file.pending)

    def room(self, most: int) -> int:
        """Return how many bytes to give at once: ``most``, or fewer where the next file is due before."""
        if self._request.rotate_size is None or self._open_problem:
            return most
        return min(most, max(self._request.rotate_size - self._file.size, 1))

    def write(self, packets: Blocks) -> None:
        """Write packet blocks, to the next file if that is due."""
        if self._request.is_rotating:
            if self._packets and self._is_due(len(packets)):
                self._rotate()
            if not self._packets:
                self._begun_at = time.monotonic()
            self._packets.update(self._by_port(packets))
        self._file.add(packets, self._ports())
        self.retry()
        self._file.keep()

    def retry(self) -> None:
        """Try to write what waits."""
        try:
            self._file.flush()
        except OSError as error:
            self._write_problem = error.strerror or str(error)
        else:
            self._write_problem = ""

    def write_statistics(self) -> None:
        """Write down what has been counted."""
        with contextlib.suppress(OSError):
            self._file.write_statistics(self._present())

    def close(self, rest: bytes) -> None:
        """End; what waits is given up.

        Args:
            rest: Packet blocks that were left: they count as lost, as does what waits.
        """
        waiting = self._by_port(self._file.pending)
        unwritten = waiting + self._by_port(rest)
        self._packets.subtract(waiting)
        self.unwritten = unwritten.total()
        with contextlib.suppress(OSError):
            self._file.write_statistics(self._present(unwritten))
        self._file.close()

    def _is_due(self, size: int) -> bool:
        rotate_size, rotate_time = self._request.rotate_size, self._request.rotate_time
        return (rotate_size is not None and self._file.size + size > rotate_size) or (
            rotate_time is not None and time.monotonic() - self._begun_at >= rotate_time
        )

    def _rotate(self) -> None:
        """Go on with the next file, or with this one where there is no next."""
        try:
            following = self._open(self._next_path())
        except CaptureError as error:
            self._open_problem = str(error)
            return
        self._open_problem = ""
        counts = self._present()
        with contextlib.suppress(OSError):
            self._file.write_statistics(counts)
        self._file.close()
        for port_no, count in counts.items():
            self._lost_before[port_no] += count.lost
            self._refused_before[port_no] += count.seen - count.accepted
        self._packets.clear()
        self._size_before += self._file.size
        self._file = following

    def _next_path(self) -> str:
        path = self._request.file or ""
        if not self._request.is_rotating:
            return path
        root, extension = os.path.splitext(path)
        return f"{root}_{self.number + 1:05}{extension}"

    def _open(self, path: str) -> _File:
        file = _File(path, self._subject)
        self.number += 1
        self._kept.append(path)
        if self._request.files is not None and len(self._kept) > self._request.files:
            with contextlib.suppress(OSError):
                os.unlink(self._kept.popleft())
        return file

    def _by_port(self, blocks: Blocks) -> Counter[int]:
        numbers = count_packets(blocks)
        ports = self._ports() if numbers else ()
        return Counter({ports[number]: count for number, count in numbers.items()})

    def _present(self, unwritten: Mapping[int, int] = _NOTHING) -> dict[int, CaptureCount]:
        """Return what the present file has to tell of each port.

        Of several files each tells of the packets in it, and of what else was counted while it was written:
        together they tell everything once.

        Args:
            unwritten: Packets of each port that count as lost now.
        """
        told = {}
        for port_no, count in self._counts().items():
            lost = count.lost - self._lost_before[port_no] + unwritten.get(port_no, 0)
            seen, accepted = count.seen, count.accepted
            if self._request.is_rotating:
                refused = max(seen - accepted - self._refused_before[port_no], 0)
                accepted = self._packets[port_no] + lost
                seen = refused + accepted
            told[port_no] = CaptureCount(seen, accepted, lost)
        return told


def write_file(path: str, blocks: bytes) -> None:
    """Write a file at once, in place of the one that is there; what cannot be written whole is removed.

    Raises:
        CaptureError: It cannot be written.
    """
    fd = _open(path)
    try:
        written = 0
        while written < len(blocks):
            written += os.write(fd, memoryview(blocks)[written:])
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise CaptureError(f"cannot write to {path}: {error.strerror}") from None
    finally:
        os.close(fd)


def _open(path: str) -> int:
    """Return a descriptor of an empty file that is ours alone to write.  Raises CaptureError."""
    try:
        fd = os.open(path, _FLAGS, _MODE)
    except OSError as error:
        # What a pipe says that nobody reads.
        reason = "is not a file" if error.errno == errno.ENXIO else error.strerror
        raise CaptureError(f"cannot write to {path}: {reason}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise CaptureError(f"cannot write to {path}: is not a file")
        _lock(fd, path)
        os.ftruncate(fd, 0)
    except OSError as error:
        os.close(fd)
        raise CaptureError(f"cannot write to {path}: {error.strerror}") from None
    except BaseException:
        os.close(fd)
        raise
    return fd


def _lock(fd: int, path: str) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CaptureError(f"cannot write to {path}: another capture does") from None
    except OSError as error:
        # Not every file system has locks.
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise
