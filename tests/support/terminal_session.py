"""A program on a pseudo terminal, driven as a person would."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Self

from support.deadline import deadline, scaled


class TerminalSession:
    """Runs a program until the block ends, which kills its session.

    Args:
        argv: The program and its arguments.
        env: Its environment.
        size: Rows and columns of its window.

    Attributes:
        shown: Everything that it has printed so far.
    """

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], size: tuple[int, int] = (24, 80)) -> None:
        self.shown = b""
        self._mark = 0
        self._status: int | None = None
        self._pid, self._fd = pty.fork()
        if not self._pid:
            # Nothing of the tests goes on in the child, whatever happens.
            try:
                self._set_size(0, size)
                os.execve(argv[0], list(argv), dict(env))
            finally:
                os._exit(127)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._fd)

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._fd, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the window's size."""
        self._set_size(self._fd, (rows, columns))

    def modes(self) -> list[object]:
        """Return the terminal's modes."""
        return termios.tcgetattr(self._fd)

    def wait_for(self, text: str, seconds: float = 20) -> bytes:
        """Read until a text comes behind the last one that was waited for; return all up to it."""
        wanted = text.encode()
        end = deadline(seconds)
        while wanted not in self.shown[self._mark :]:
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"no {wanted!r} in {self.shown[self._mark :]!r}")
        begin = self._mark
        self._mark = self.shown.index(wanted, begin) + len(wanted)
        return self.shown[begin : self._mark]

    def wait(self, seconds: float = 20) -> int:
        """Read to the end and return the exit status."""
        end = deadline(seconds)
        while self._read(max(0.0, end - time.monotonic())):
            pass
        pidfd = os.pidfd_open(self._pid)
        try:
            assert select.select([pidfd], [], [], scaled(seconds))[0], "it does not end"
        finally:
            os.close(pidfd)
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        return self._status

    def _read(self, seconds: float) -> bool:
        if not select.select([self._fd], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._fd, 65_536)
        except OSError:
            # Nobody has the other side open.
            return False
        self.shown += data
        return bool(data)

    @staticmethod
    def _set_size(fd: int, size: tuple[int, int]) -> None:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("=4H", *size, 0, 0))
