"""The last program before a guest's kernel: gives up what a guest must not have, then becomes it.

Run by path as ``python -I -S launch.py PARENT FILES LIMIT MEANS COUNT WRITABLE... KERNEL ARGUMENT...``
with ``PARENT`` the pid that must be the parent, ``FILES`` the inherited descriptors that become 3, 4, ...
(such as ``7,9``, or ``-``), ``LIMIT`` how many it may have open, ``MEANS`` what keeps it from other files
than ``COUNT`` places that stay writable: some of ``landlock``, ``mounts`` and ``attributes``, such as
``landlock,mounts``, or ``none``.

A UML guest is not contained by itself: when its main process dies, its programs run on as host
processes until their group is killed, and its root can write wherever the host user can through
hostfs.  So, in this order:

* death with the starting thread, until the kernel runs: from then on it would set the guest's programs
  free, and :mod:`umlab.guest.watch` takes over;
* no core files;
* only for root, where Landlock is not there or not enough, mounts that are read-only,
  :mod:`umlab.guest.mounts`;
* as root, no capability but CAP_DAC_OVERRIDE: what runs away can neither mount, reboot nor load
  modules.  A guest that opens a tap itself therefore needs one that its user owns;
* no new privileges;
* Landlock, :mod:`umlab.guest.landlock`;
* a seccomp filter, :mod:`umlab.guest.seccomp`; with ``attributes`` it takes away those of all files.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAP_DAC_OVERRIDE = 1
_EX_FAILED = 125
#: The first descriptor behind the standard ones.
_FIRST_FILE = 3


def _prctl(option: int, value: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    return int(libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def _must(option: int, value: int) -> None:
    if _prctl(option, value) < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option}: {os.strerror(error)}")


def _drop_capabilities() -> None:
    """Empty the bounding set, so that exec as root gives CAP_DAC_OVERRIDE and nothing else."""
    number = 0
    while _prctl(_PR_CAPBSET_READ, number) >= 0:
        if number != _CAP_DAC_OVERRIDE:
            _must(_PR_CAPBSET_DROP, number)
        number += 1


def command_line(files: Sequence[int], words: Sequence[str]) -> list[str]:
    """Return the command of a guest whose parent is the process that calls this.

    Args:
        files: Descriptors that it will inherit, to become 3, 4, ...
        words: ``MEANS COUNT WRITABLE... KERNEL ARGUMENT...``.
    """
    from umlab._descriptor_limit import inherited_descriptor_limit

    given, limit = ",".join(map(str, files)) or "-", str(inherited_descriptor_limit())
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), given, limit, *words]


def _renumber(files: list[int]) -> None:
    """Make inherited descriptors 3, 4, ... and leave no other number to them."""
    # Meanwhile they are so high that none is in the place of another one that has still to move.
    least = _FIRST_FILE + len(files)
    aside = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least) for fd in files]
    for fd in files:
        os.close(fd)
    for number, fd in enumerate(aside, _FIRST_FILE):
        os.dup2(fd, number)


def main(argv: list[str]) -> None:
    """Restrict this process and become the kernel; returns only by an exception."""
    parent, files, limit = int(argv[0]), argv[1], int(argv[2])
    means, count = argv[3].split(","), int(argv[4])
    writable, command = argv[5 : 5 + count], argv[5 + count :]
    _must(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise OSError("the starting process is gone")
    _renumber([] if files == "-" else [int(fd) for fd in files.split(",")])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # Infinity is a negative number.
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit if hard < 0 else min(limit, hard), hard))
    # At the end of the path: nothing beside the package may shadow the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from umlab.guest import landlock, mounts, seccomp

    if "mounts" in means:
        mounts.restrict_writes(writable, devices="landlock" in means)
    if os.geteuid() == 0:
        _drop_capabilities()
    _must(_PR_SET_NO_NEW_PRIVS, 1)
    if "landlock" in means:
        landlock.restrict_writes(writable)
    seccomp.restrict_calls(attributes="attributes" not in means)
    _must(_PR_SET_PDEATHSIG, 0)
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        print(f"umlab: cannot start the guest: {error}", flush=True)
        os._exit(_EX_FAILED)
