"""A program run for a moment: little output, little time, and nothing of it left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import NamedTuple

_MAX_OUTPUT = 4096
_TIMEOUT = 1.5


class Outcome(NamedTuple):
    """How it went.

    Attributes:
        status: Exit status, negative for a signal; ``None`` if it did not end in time, or said too much.
        output: The first bytes of what it printed on either stream.
    """

    status: int | None
    output: bytes

    @property
    def text(self) -> str:
        """The last line of the output, fit for a terminal, or how the program ended."""
        lines = self.output.decode("ascii", "backslashreplace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        if said:
            return "".join(letter if letter.isprintable() else "?" for letter in said[-1])
        return "it does not end" if self.status is None else f"it ended with status {self.status}"


def run_briefly(argv: Sequence[str]) -> Outcome:
    """Run a program in a group of its own, for a second and a half at most, and kill what is left of it.

    Raises:
        OSError: It cannot be started.
    """
    end = time.monotonic() + _TIMEOUT
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as child:
        assert child.stdout is not None
        try:
            output = _read(child.stdout.fileno(), end)
            ended = len(output) < _MAX_OUTPUT and _has_ended(child.pid, end)
        finally:
            # It has not been waited for, so the group's number is still its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        status = child.wait()
    return Outcome(status if ended else None, output)


def _read(fd: int, end: float) -> bytes:
    output = b""
    while len(output) < _MAX_OUTPUT and _is_ready(fd, end):
        chunk = os.read(fd, _MAX_OUTPUT - len(output))
        if not chunk:
            break
        output += chunk
    return output


def _has_ended(pid: int, end: float) -> bool:
    pidfd = os.pidfd_open(pid)
    try:
        return _is_ready(pidfd, end)
    finally:
        os.close(pidfd)


def _is_ready(fd: int, end: float) -> bool:
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    return bool(poller.poll(max(0.0, end - time.monotonic()) * 1000))
