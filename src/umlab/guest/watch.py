"""A child that leads its own process group, and who ends the whole group with it.

Only the main process of a UML guest holds the guest's programs back from the host.  So the group is
killed as soon as the main process dies, by whatever cause: a thread that does nothing else waits for
that, and a busy event loop does not delay it.

The group is killed, too, when our own process dies: see :mod:`umlab.guest.guard`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from umlab.guest.guard import Guard

_log = logging.getLogger(__name__)
#: Seconds that killed processes have to be gone; one that hangs in the host's kernel takes longer.
_GONE_TIMEOUT = 10.0
_GONE_POLL = 0.002


def group_members(group: int) -> list[int]:
    """Return the pids of a process group that are alive, zombies left out; reads all of ``/proc``."""
    members = []
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # pid (name) state ppid pgrp ...; the name may hold anything, also ')'.
                fields = file.read().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[2]) == group and fields[0] not in (b"Z", b"X"):
            members.append(int(name))
    return members


class WatchedGroup:
    """One child in its own session and process group, watched by a thread of its own.

    Args:
        argv: The command.
        cwd: Its working directory.
        env: Its whole environment.
        output: Descriptor for its standard output and error.
        pass_fds: Descriptors that it inherits under the same numbers.
        on_end: Called once, in the watching thread, with the exit status (negative for a signal) after
            every process of the group is gone and the main one is reaped.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: str,
        env: dict[str, str],
        output: int,
        pass_fds: Sequence[int] = (),
        on_end: Callable[[int], None],
    ) -> None:
        self._argv = list(argv)
        self._cwd = cwd
        self._env = env
        self._output = output
        self._pass_fds = tuple(pass_fds)
        self._on_end = on_end
        self._started: Future[int] = Future()
        # Held while a signal is sent and while the main process is reaped: until then its pid, which is
        # the group's number, cannot belong to anybody else.
        self._lock = threading.Lock()
        self._reaped = False
        self._pid = 0
        self._thread = threading.Thread(target=self._run, name="umlab-guest-watch", daemon=True)

    def start(self) -> int:
        """Start the child and return its pid; blocks for the milliseconds that this takes.

        Raises:
            OSError: It cannot be started.
            ValueError, TypeError: The command is none.
        """
        self._thread.start()
        return self._started.result()

    def signal(self, number: int) -> None:
        """Send a signal to the main process only; nothing happens when it has been reaped."""
        self._send(os.kill, number)

    def kill(self) -> None:
        """Send SIGKILL to the whole group at once; nothing happens when it has been reaped."""
        self._send(os.killpg, signal.SIGKILL)

    def join(self, timeout: float | None = None) -> bool:
        """Wait, blocking, for the thread's end and say whether it came.

        Args:
            timeout: Seconds, ``None`` for ever.
        """
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _send(self, send: Callable[[int, int], None], number: int) -> None:
        with self._lock:
            if self._pid and not self._reaped:
                with contextlib.suppress(ProcessLookupError):
                    send(self._pid, number)

    def _run(self) -> None:
        try:
            guard = Guard()
        except OSError as error:
            self._started.set_exception(error)
            return
        try:
            child = self._spawn()
        except (OSError, ValueError, TypeError) as error:
            # What is no text for a program, such as a NUL, as well.
            guard.dismiss()
            self._started.set_exception(error)
            return
        guard.arm(child.pid)
        self._pid = child.pid
        try:
            pidfd = os.pidfd_open(child.pid)
        except OSError as error:
            self._end_group(child, guard)
            self._started.set_exception(error)
            return
        self._started.set_result(child.pid)
        # poll() releases the interpreter lock and returns for the zombie too, that is at once.
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll()
        status = self._end_group(child, guard)
        os.close(pidfd)
        self._on_end(status)

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._argv,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=self._output,
            cwd=self._cwd,
            env=self._env,
            pass_fds=self._pass_fds,
            start_new_session=True,
        )

    def _end_group(self, child: subprocess.Popen[bytes], guard: Guard) -> int:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        deadline = time.monotonic() + _GONE_TIMEOUT
        while members := group_members(child.pid):
            if time.monotonic() > deadline:
                _log.error("processes %s of guest %d do not die", members, child.pid)
                break
            time.sleep(_GONE_POLL)
        guard.dismiss()
        with self._lock:
            status = child.wait()
            self._reaped = True
        return status
