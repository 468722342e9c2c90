"""Who kills a process group of ours when we die, however that comes.

The kernel's parent-death signal cannot do that: it comes once for each of our threads, to the child alone and
not to what that has started, and SIGTERM ends a UML kernel in order only the first time.  A shell of a few
hundred kilobytes waits at the end of a pipe instead.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator


class Guard:
    """A process that kills a group when this process ends without having dismissed it.

    Raises:
        OSError: It cannot be started.
    """

    #: The first line is the group.  Then the end of the pipe is our end; a second line is the dismissal.
    _SCRIPT = 'read -r group && { read -r line || kill -s KILL -- "-$group"; }'

    def __init__(self) -> None:
        reader, self._pipe = os.pipe2(os.O_CLOEXEC)
        try:
            # A session of its own: a terminal's interrupt is for us, not for the guard.
            self._shell = subprocess.Popen(
                ["/bin/sh", "-c", self._SCRIPT],
                stdin=reader,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reader)

    def arm(self, group: int) -> None:
        """Name the group; it must be dismissed before the group's number can become another's."""
        self._tell(f"{group}\n")

    def dismiss(self) -> None:
        """End the guard; armed before or not, it kills nothing."""
        self._tell("\n\n")
        os.close(self._pipe)
        self._shell.wait()

    def _tell(self, line: str) -> None:
        # A guard that somebody has killed cannot be told anything.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._pipe, line.encode())


@contextlib.contextmanager
def guarded() -> Iterator[Guard]:
    """Yield a guard for the block, after which nothing is left of its group.  Raises OSError."""
    guard = Guard()
    try:
        yield guard
    finally:
        guard.dismiss()
