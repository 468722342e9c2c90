"""A program that traces a child as a User Mode Linux kernel does; its last word says what went wrong.

Run by path as ``python -I -S trace_probe.py``; imports nothing of umlab.

Source: Linux arch/um/os-Linux/start_up.c; ptrace(2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_TRACEME, _SETOPTIONS, _SYSEMU = 0, 0x4200, 31
_TRACESYSGOOD, _EXITKILL = 1, 1 << 20


def _ptrace(request: int, pid: int, data: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(ctypes.c_long(request), ctypes.c_int(pid), ctypes.c_void_p(0), ctypes.c_void_p(data)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace request {request:#x}: {os.strerror(error)}")


def _traced() -> None:
    try:
        _ptrace(_TRACEME, 0, 0)
    except OSError:
        os._exit(2)
    os.kill(os.getpid(), signal.SIGSTOP)
    # With SYSEMU this never happens: the call is stopped before it is made.
    os._exit(3)


def main() -> str:
    """Trace a child through one system call and return what failed, nothing if all is well."""
    child = os.fork()
    if not child:
        _traced()
    try:
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return "it may not ask to be traced"
        _ptrace(_SETOPTIONS, child, _TRACESYSGOOD | _EXITKILL)
        _ptrace(_SYSEMU, child, 0)
        _, status = os.waitpid(child, 0)
        stopped = os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGTRAP | 0x80
        return "" if stopped else "its system call was not stopped"
    except OSError as error:
        return str(error.strerror)
    finally:
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            pass
        else:
            os.waitpid(child, 0)


if __name__ == "__main__":
    if failure := main():
        print(failure)
        sys.exit(1)
