"""A seccomp filter that keeps runaway guest processes where ``killpg`` finds them.

While its kernel lives, a guest program's system calls never reach the host (PTRACE_SYSEMU skips them
before seccomp looks).  Once the kernel's main process is dead they do, until the group is killed.  A
program that is in a loop of ``setsid`` or ``fork`` at that moment would leave the group and live on;
with this filter it cannot, and ``kill(-1)`` cannot reach the user's other processes either.  The kernel
itself needs none of these calls; the programs that it starts for ``port:`` and ``xterm`` consoles do, so
those do not work in such a guest.

Source: Linux Documentation/userspace-api/seccomp_filter.rst; system call numbers of x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_RET_ALLOW = 0x7FFF0000
_RET_EPERM = 0x00050000 | errno.EPERM
_AUDIT_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
_NR_KILL, _NR_SETPGID, _NR_SETSID = 62, 109, 112
#: BPF: load a word at an offset of struct seccomp_data; jump if equal, if at least; return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_AT_NUMBER, _AT_ARCH, _AT_FIRST_ARGUMENT = 0, 4, 16

#: (code, jump if true, jump if false, constant); jumps skip that many instructions.
_PROGRAM = (
    (_LOAD, 0, 0, _AT_ARCH),
    (_IF_EQUAL, 0, 8, _AUDIT_ARCH_X86_64),
    (_LOAD, 0, 0, _AT_NUMBER),
    (_IF_AT_LEAST, 6, 0, _X32_BIT),
    (_IF_EQUAL, 5, 0, _NR_SETSID),
    (_IF_EQUAL, 4, 0, _NR_SETPGID),
    (_IF_EQUAL, 0, 2, _NR_KILL),
    (_LOAD, 0, 0, _AT_FIRST_ARGUMENT),
    (_IF_EQUAL, 1, 0, 0xFFFFFFFF),
    (_RETURN, 0, 0, _RET_ALLOW),
    (_RETURN, 0, 0, _RET_EPERM),
)


class _Fprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def keep_in_group() -> None:
    """Refuse, from now on and in all children, setsid, setpgid, ``kill(-1)`` and foreign call tables.

    Does nothing on machines other than x86-64.  NO_NEW_PRIVS must be set.

    Raises:
        OSError: The kernel does not take the filter.
    """
    if os.uname().machine != "x86_64":
        return
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in _PROGRAM)
    program = _Fprog(len(_PROGRAM), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")
