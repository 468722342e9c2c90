"""What a caller asks a capture to be, and what it is told of one: plain values, the API's own."""

from __future__ import annotations

import os
from dataclasses import dataclass

from umlab.engine.contract import MAX_SNAP_LENGTH
from umlab.switch.model import MAX_PORT_NO, MIN_FRAME

#: Bytes of a file after which the next one may begin, at least.
MIN_ROTATE_SIZE = 1 << 16
#: Seconds of the same.
MIN_ROTATE_TIME = 1.0
#: Seconds that can be asked for at most, some 30 years.
MAX_TIME = 1e9
#: Files of one capture that are kept at most.
MAX_FILES = 99_999
#: Characters of a filter.
MAX_FILTER = 100_000


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What a capture is asked to be.

    Attributes:
        switch: The switch.
        ports: Numbers of the ports; ``None`` for all, also those that come later.
        filter: Which frames are kept: an expression of libpcap, or what ``tcpdump -ddd`` prints; empty
            for all.
        snap_length: Bytes of a frame that are kept at most.
        last: Instead of what comes: what the flight recorder has of so many seconds.
        file: Absolute path of a file that the daemon writes, in place of the one that is there; ``None`` to
            have the bytes sent.
        rotate_size: Bytes of a file after which the next one begins.
        rotate_time: Seconds of the same.
        files: How many files are kept, the newest ones.

    Raises:
        ValueError: A number is out of its bounds, or two fields do not go together.
    """

    switch: str
    ports: tuple[int, ...] | None = None
    filter: str = ""
    snap_length: int = MAX_SNAP_LENGTH
    last: float | None = None
    file: str | None = None
    rotate_size: int | None = None
    rotate_time: float | None = None
    files: int | None = None

    def __post_init__(self) -> None:
        if self.ports is not None and not self.ports:
            raise ValueError("ports: name at least one, or none of them for all")
        for port_no in self.ports or ():
            _check("a port number", port_no, 1, MAX_PORT_NO)
        if len(self.filter) > MAX_FILTER:
            raise ValueError(f"the filter has over {MAX_FILTER} characters")
        for name, text in (("filter", self.filter), ("file", self.file or "")):
            # A command line may have any bytes in it.
            if text != text.encode(errors="replace").decode():
                raise ValueError(f"{name}: {text[:200]!r} is not UTF-8")
        _check("snap_length", self.snap_length, MIN_FRAME, MAX_SNAP_LENGTH)
        if self.last is not None and not 0 < self.last <= MAX_TIME:
            raise ValueError(f"last must be over 0 seconds, and {MAX_TIME:g} at most")
        self._check_file()

    def _check_file(self) -> None:
        file = self.file
        if file is not None and (not os.path.isabs(file) or "\0" in file or file.endswith("/")):
            raise ValueError(f"file: {file[:200]!r} is not the absolute path of a file")
        if self.rotate_size is not None:
            _check("rotate_size", self.rotate_size, MIN_ROTATE_SIZE, 1 << 62)
        if self.rotate_time is not None:
            _check("rotate_time", self.rotate_time, MIN_ROTATE_TIME, MAX_TIME)
        if self.files is not None:
            _check("files", self.files, 1, MAX_FILES)
            if not self.is_rotating:
                raise ValueError("files goes with rotate_size or rotate_time")
        if self.is_rotating and (self.file is None or self.last is not None):
            raise ValueError("rotate_size and rotate_time go with file, and not with last")

    @property
    def is_rotating(self) -> bool:
        """Whether there may be several files."""
        return self.rotate_size is not None or self.rotate_time is not None


@dataclass(frozen=True, slots=True)
class CaptureProgress:
    """How far a capture is.

    Attributes:
        event: ``started``, ``progress``, or ``ended`` for the last one.
        seen: Frames that the ports have counted, dropped ones included.
        frames: Those that the filter has accepted and that are kept, or wait to be written.
        lost: Those that the filter has accepted and that could not be kept.
        bytes: Of pcapng, written or sent.
        file: What is written to now, or was last.
        files: How many files there have been.
        problem: Why nothing can be written right now, such as ``No space left on device``.
        reason: Why it has ended: ``asked``, ``saved`` (what the recorder had), or because the ``switch`` or
            the ``lab`` ends.
        covered: Of what the recorder had: how many seconds it reaches back, fewer than were asked for where
            it holds no more.
    """

    event: str
    seen: int = 0
    frames: int = 0
    lost: int = 0
    bytes: int = 0
    file: str | None = None
    files: int = 0
    problem: str = ""
    reason: str = ""
    covered: float | None = None


def _check(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be between {least} and {most}")
