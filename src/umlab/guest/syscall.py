"""System calls that the standard library does not have.

Imports nothing heavy: the launcher loads it just before it becomes the guest.
"""

from __future__ import annotations

import ctypes
import os


def system_call(number: int, *arguments: object) -> int:
    """Return what a system call returns, -1 for an error, which ``ctypes.get_errno`` then tells.

    Args:
        number: The call, as on every architecture that has the numbers of the generic table.
        arguments: Its arguments; numbers are passed as ``long``.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(libc.syscall(ctypes.c_long(number), *wide))


def checked(result: int, what: str) -> int:
    """Return the result of a call.

    Args:
        result: As of :func:`system_call`, made just before.
        what: What it was to do, such as ``have mounts of its own``.

    Raises:
        OSError: It failed.
    """
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"cannot {what}: {os.strerror(error)}")
    return result
