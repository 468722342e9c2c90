"""The last program before a guest's kernel: gives up what a guest must not have, then becomes it.

Run by path as ``python -I -S launch.py PARENT LANDLOCK COUNT WRITABLE... KERNEL ARGUMENT...`` with
``PARENT`` the pid that must be the parent, ``LANDLOCK`` 1 or 0, and ``COUNT`` places that stay writable.

A UML guest is not contained by itself: when its main process dies, its programs run on as host
processes until their group is killed, and its root can write wherever the host user can through
hostfs.  So, in this order:

* death with the starting thread, until the kernel runs: from then on it would set the guest's programs
  free, and :mod:`umlab.guest.watch` takes over;
* no core files, no new privileges;
* as root, no capability but CAP_DAC_OVERRIDE: what runs away can neither mount, reboot nor load
  modules.  A guest that opens a tap itself therefore needs one that its user owns;
* Landlock, :mod:`umlab.guest.landlock`;
* a seccomp filter, :mod:`umlab.guest.seccomp`.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38
_CAP_DAC_OVERRIDE = 1
_EX_FAILED = 125


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


def main(argv: list[str]) -> None:
    """Restrict this process and become the kernel; returns only by an exception."""
    parent, use_landlock, count = int(argv[0]), argv[1] == "1", int(argv[2])
    writable, command = argv[3 : 3 + count], argv[3 + count :]
    _must(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise OSError("the starting process is gone")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.geteuid() == 0:
        _drop_capabilities()
    _must(_PR_SET_NO_NEW_PRIVS, 1)
    # At the end of the path: nothing beside the package may shadow the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
    from umlab.guest import landlock, seccomp

    if use_landlock:
        landlock.restrict_writes(writable)
    seccomp.keep_in_group()
    _must(_PR_SET_PDEATHSIG, 0)
    os.execv(command[0], command)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except OSError as error:
        print(f"umlab: cannot start the guest: {error}", flush=True)
        os._exit(_EX_FAILED)
