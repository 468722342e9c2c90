"""Whether a process lives, as a test that waits for its end has to know it."""

from __future__ import annotations

import os
import select


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended with all its threads; one that nobody has reaped yet has."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], 0)[0])
    finally:
        os.close(pidfd)
