"""Go on in the background once everything stands, and let the caller wait until then."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable


def continue_in_background() -> Callable[[], None]:
    """Fork; return in the child, as the leader of a session of its own.

    The parent stays until the child calls what this returns, and then ends with status 0: whoever started
    it finds the sockets there.  If the child ends before, the parent ends with its status, 1 for a signal.
    Call it while the process has one thread and no event loop.

    Returns:
        Tells the parent, and moves the child to the root directory so that it keeps none busy.  Standard
        input, output and error stay as they are.
    """
    told, tell = os.pipe()
    child = os.fork()
    if child:
        os.close(tell)
        came = os.read(told, 1)
        # Nothing of this process may run twice: no buffers, no handlers.
        os._exit(0 if came else _status_of(child))
    os.close(told)
    os.setsid()

    def ready() -> None:
        os.chdir("/")
        # A caller that has been killed meanwhile does not matter.
        with contextlib.suppress(BrokenPipeError):
            os.write(tell, b"\n")
        os.close(tell)

    return ready


def _status_of(child: int) -> int:
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status > 0 else 1
