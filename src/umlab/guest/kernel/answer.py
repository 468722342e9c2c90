"""What a UML kernel says of itself when it is asked on its command line.

Source: Linux arch/um/kernel/um_arch.c.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time

from umlab.errors import LabError
from umlab.guest.cmdline import DEFAULT_KERNEL

#: Seconds that a kernel has for its answer, which takes it some milliseconds.
TIMEOUT = 10.0
#: Bytes of an answer; the configuration of Debian's kernel has 82 KiB.
MAX_ANSWER = 1 << 20


def ask(kernel: str, option: str) -> bytes:
    """Return what a kernel writes when it is started with an option; blocks, and nothing of it runs on.

    Raises:
        LabError: It cannot be run, fails, writes too much, or does not end in time.
    """
    deadline = time.monotonic() + TIMEOUT
    try:
        # A path without a slash would be looked for in PATH.
        process = subprocess.Popen(
            [os.path.abspath(kernel), option],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LabError(f"cannot run the kernel {kernel}: {reason}") from None
    assert process.stdout is not None
    try:
        output = _read_all(kernel, option, process.stdout.fileno(), deadline)
        _await_end(kernel, option, process.pid, deadline)
    finally:
        process.stdout.close()
        # It has not been reaped, so the number is still its group's, with all that it has left behind.
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode != 0:
        raise no_kernel(kernel, f"it does not know {option}")
    return output


def kernel_release(kernel: str) -> str:
    """Return what a kernel's ``--version`` says; blocks while it runs, 10 seconds at most.

    Raises:
        LabError: It cannot be run, or is no UML kernel.
    """
    words = ask(kernel, "--version").decode("ascii", "replace").split()
    if len(words) != 1:
        raise no_kernel(kernel, "it does not tell its version")
    return words[0]


def _read_all(kernel: str, option: str, fd: int, deadline: float) -> bytes:
    output = b""
    while True:
        _await_readable(kernel, option, fd, deadline)
        data = os.read(fd, 65_536)
        if not data:
            return output
        output += data
        if len(output) > MAX_ANSWER:
            raise no_kernel(kernel, f"its {option} writes more than {MAX_ANSWER >> 20} MiB")


def _await_end(kernel: str, option: str, pid: int, deadline: float) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        _await_readable(kernel, option, pidfd, deadline)
    finally:
        os.close(pidfd)


def _await_readable(kernel: str, option: str, fd: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise no_kernel(kernel, f"its {option} does not end within {TIMEOUT:g} seconds")


def no_kernel(kernel: str, reason: str) -> LabError:
    """Return the error that a program is no kernel of ours, and where there is one."""
    return LabError(
        f"{kernel} is not a User Mode Linux kernel: {reason}; "
        f"Debian's is {DEFAULT_KERNEL}, from the package user-mode-linux"
    )
