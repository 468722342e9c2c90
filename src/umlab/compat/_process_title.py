"""Show a script's process under the script's own command line instead of the interpreter's.

Callers look for the old tools with ``pgrep -f '^/some/bin/uml_switch'`` and take the last word of the
command line as the socket's path.  The kernel starts a script as ``INTERPRETER [OPTION] SCRIPT ARG...``,
so the wanted command line already lies at the end of the argument area: it is enough to tell the
kernel that the area begins there.  Nothing is allocated or copied, and no byte follows the last word.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

_PR_SET_NAME = 15
_PR_SET_MM = 35
_PR_SET_MM_ARG_START = 8
_PR_SET_MM_MAP = 14

#: The most that the kernel keeps of a thread's name.
_NAME_LIMIT = 15


class _MemoryMap(ctypes.Structure):
    """``struct prctl_mm_map``: eleven addresses, then the auxiliary vector and the executable.

    Source: Linux include/uapi/linux/prctl.h.
    """

    _fields_ = (
        ("start_code", ctypes.c_uint64),
        ("end_code", ctypes.c_uint64),
        ("start_data", ctypes.c_uint64),
        ("end_data", ctypes.c_uint64),
        ("start_brk", ctypes.c_uint64),
        ("brk", ctypes.c_uint64),
        ("start_stack", ctypes.c_uint64),
        ("arg_start", ctypes.c_uint64),
        ("arg_end", ctypes.c_uint64),
        ("env_start", ctypes.c_uint64),
        ("env_end", ctypes.c_uint64),
        ("auxv", ctypes.c_void_p),
        ("auxv_size", ctypes.c_uint32),
        ("exe_fd", ctypes.c_uint32),
    )


def show_script_command_line(argv: Sequence[str]) -> bool:
    """Make ``/proc/PID/cmdline``, and so ps, pgrep and lsof, show ``argv`` exactly; set the name as well.

    Call it while the process has one thread.

    Args:
        argv: The script's own view of its command line: a ``sys.argv`` that nobody has changed.

    Returns:
        Whether it is shown.  ``False`` where ``argv`` is not the end of the real command line (started
        with ``python -m``), or where ``/proc`` cannot be read; everything is then as before.  Where the
        kernel refuses to move the beginning of the area, the words are moved instead and NULs follow.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    name = os.fsencode(os.path.basename(argv[0]))[:_NAME_LIMIT]
    libc.prctl(_PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0)
    wanted = b"".join(os.fsencode(word) + b"\0" for word in argv)
    try:
        with open("/proc/self/cmdline", "rb") as file:
            shown = file.read()
        fields = _stat_fields()
    except OSError:
        return False
    if shown == wanted:
        return True
    if not shown.endswith(b"\0" + wanted) or fields.arg_end - fields.arg_start != len(shown):
        return False
    area = fields.arg_start
    if not _move_start(libc, fields, fields.arg_end - len(wanted)):
        ctypes.memmove(area, wanted.ljust(len(shown), b"\0"), len(shown))
    return True


def _stat_fields() -> _MemoryMap:
    """Read the addresses that ``/proc/self/stat`` tells; ``brk`` is not among them.

    Source: proc_pid_stat(5), fields 26 to 28, 45 to 47 and 48 to 51 (numbered from 1).
    """
    with open("/proc/self/stat", "rb") as file:
        after_name = file.read().rpartition(b")")[2].split()

    def field(number: int) -> int:
        return int(after_name[number - 3])

    return _MemoryMap(
        start_code=field(26),
        end_code=field(27),
        start_data=field(45),
        end_data=field(46),
        start_brk=field(47),
        start_stack=field(28),
        arg_start=field(48),
        arg_end=field(49),
        env_start=field(50),
        env_end=field(51),
        exe_fd=0xFFFF_FFFF,
    )


def _move_start(libc: ctypes.CDLL, fields: _MemoryMap, arg_start: int) -> bool:
    """Move the beginning of the argument area, as root or else through the checkpoint interface."""
    if libc.prctl(_PR_SET_MM, _PR_SET_MM_ARG_START, ctypes.c_ulong(arg_start), 0, 0) == 0:
        return True
    libc.sbrk.restype = ctypes.c_void_p
    libc.sbrk.argtypes = (ctypes.c_ssize_t,)
    fields.arg_start = arg_start
    size = ctypes.c_ulong(ctypes.sizeof(fields))
    reference = ctypes.byref(fields)
    # The whole map is set, so the heap must not have grown between the reading and the call: try again.
    while True:
        fields.brk = libc.sbrk(0)
        if libc.prctl(_PR_SET_MM, _PR_SET_MM_MAP, reference, size, 0) != 0:
            return False
        if libc.sbrk(0) == fields.brk:
            return True
