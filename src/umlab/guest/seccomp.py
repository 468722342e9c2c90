"""A seccomp filter: what a guest's processes must not ask of the host, whatever file or process it is about.

While its kernel lives, a guest program's system calls never reach the host (PTRACE_SYSEMU skips them
before seccomp looks); its kernel's do, and some of these do what the guest's root wants.  Once the
kernel's main process is dead the programs' calls reach the host too, until the group is killed.

* Out of the group: a program that is in a loop of ``setsid`` or ``fork`` at that moment would leave the
  group and live on; with this filter it cannot, and ``kill(-1)`` cannot reach the user's other processes
  either.  The kernel itself needs none of these calls; the programs that it starts for ``port:`` and
  ``xterm`` consoles do, so those do not work in such a guest.
* Attributes of files: nothing else forbids them, since Landlock has no right for them.  Mode, owner and
  times are what a hostfs sets where the guest may write to one; nobody needs extended attributes and flags.
* Programs that run as their owner: a file of root's that everybody may run must not become one.  The bits
  are refused of directories as well, which a filter cannot tell from files.
* What does any of this past a filter: io_uring, and ``openat2``, whose mode is not among its arguments.

Source: Linux Documentation/userspace-api/seccomp_filter.rst, fs/hostfs/hostfs_user.c; system call numbers
of x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_RET_ALLOW = 0x7FFF0000
_RET_EPERM = 0x00050000 | errno.EPERM
_RET_ENOSYS = 0x00050000 | errno.ENOSYS
_AUDIT_ARCH_X86_64 = 0xC000003E
_X32_BIT = 0x40000000
#: BPF: load a word at an offset of struct seccomp_data; jump if equal, if at least, if a bit is set; return.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _IF_SET, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AT_NUMBER, _AT_ARCH, _AT_ARGUMENTS = 0, 4, 16

_NR_KILL, _NR_SETPGID, _NR_SETSID = 62, 109, 112
_NR_IOCTL, _NR_IO_URING_SETUP, _NR_OPENAT2 = 16, 425, 437
#: FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR.
_SET_FLAGS = (0x40086602, 0x401C5820)
#: setxattr, lsetxattr, fsetxattr and removexattr alike; setxattrat, removexattrat; file_setattr.
_EXTENDED = (188, 189, 190, 197, 198, 199, 463, 466, 469)
#: By number, which argument is the mode: chmod, fchmod, fchmodat, fchmodat2.
_CHANGE_MODE = {90: 1, 91: 1, 268: 2, 452: 2}
#: creat, mknod, mknodat.
_CREATE = {85: 1, 133: 1, 259: 2}
#: By number, which arguments are flags and mode: open, openat.
_OPEN = {2: (1, 2), 257: (2, 3)}
#: O_CREAT, O_TMPFILE without O_DIRECTORY: there is a mode.
_HAS_MODE = 0o100 | 0o20000000
_SET_ID_BITS = 0o6000
#: chown, fchown, lchown, fchownat; utime, utimes, futimesat, utimensat.
_OWNERS_AND_TIMES = (92, 93, 94, 260, 132, 235, 261, 280)

_Instruction = tuple[int, int, int, int]


class _Fprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def restrict_calls(*, attributes: bool) -> None:
    """Refuse, from now on and in all children, the calls that the module names, and foreign call tables.

    Does nothing on machines other than x86-64.  NO_NEW_PRIVS must be set.

    Args:
        attributes: Leave the mode, the owner and the times of files to them.

    Raises:
        OSError: The kernel does not take the filter.
    """
    if os.uname().machine != "x86_64":
        return
    instructions = _program(attributes=attributes)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
    program = _Fprog(len(instructions), code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_SECCOMP_MODE_FILTER), ctypes.byref(program), 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"seccomp: {os.strerror(error)}")


def _program(*, attributes: bool) -> list[_Instruction]:
    """Return the filter; jumps skip so many instructions, if true and if false."""
    refused = [_NR_SETSID, _NR_SETPGID, *_EXTENDED]
    with_mode = dict(_CREATE)
    if attributes:
        with_mode |= _CHANGE_MODE
    else:
        refused += [*_CHANGE_MODE, *_OWNERS_AND_TIMES]
    program = [
        (_LOAD, 0, 0, _AT_ARCH),
        (_IF_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        (_RETURN, 0, 0, _RET_EPERM),
        (_LOAD, 0, 0, _AT_NUMBER),
        (_IF_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _RET_EPERM),
    ]
    for number in refused:
        program += _when(number, [], _RET_EPERM)
    for number in (_NR_IO_URING_SETUP, _NR_OPENAT2):
        program += _when(number, [], _RET_ENOSYS)
    program += _when(_NR_KILL, [_is(0, 0xFFFFFFFF)], _RET_EPERM)
    for command in _SET_FLAGS:
        program += _when(_NR_IOCTL, [_is(1, command)], _RET_EPERM)
    for number, mode in with_mode.items():
        program += _when(number, [_has(mode, _SET_ID_BITS)], _RET_EPERM)
    for number, (flags, mode) in _OPEN.items():
        program += _when(number, [_has(flags, _HAS_MODE), _has(mode, _SET_ID_BITS)], _RET_EPERM)
    return [*program, (_RETURN, 0, 0, _RET_ALLOW)]


def _is(argument: int, value: int) -> tuple[int, int, int]:
    return argument, _IF_EQUAL, value


def _has(argument: int, bits: int) -> tuple[int, int, int]:
    return argument, _IF_SET, bits


def _when(number: int, conditions: list[tuple[int, int, int]], result: int) -> list[_Instruction]:
    """Return what ends the filter for a call whose arguments' low halves fulfil all conditions.

    The call's number is loaded before, and again behind it.
    """
    rest: list[_Instruction] = [(_RETURN, 0, 0, result)]
    if conditions:
        rest.append((_LOAD, 0, 0, _AT_NUMBER))
    for argument, test, value in reversed(conditions):
        # To the number's loading.
        rest[:0] = [(_LOAD, 0, 0, _AT_ARGUMENTS + 8 * argument), (test, 0, len(rest) - 1, value)]
    return [(_IF_EQUAL, 0, len(rest), number), *rest]
