"""The directories in which labs keep their sockets and their state."""

from __future__ import annotations

import os
import stat
import tempfile

from umlab.daemon.place import GUESTS
from umlab.lab.doctor.finding import Status, Subject, Verdict
from umlab.wire.sockaddr import MAX_SOCKET_PATH

#: What the longest socket's path has beside the lab's name and, twice, the guest's.
_AROUND_NAMES = f"//{GUESTS}///mconsole"
#: Below this, names of eight letters do not fit.
_FEW_LETTERS = 24
_LOW_DISK_MIB = 1024


def check_runtime(subject: Subject) -> Verdict:
    """Look whether labs' directories can be made, as nobody but us, with paths that sockets can have."""
    path = subject.runtime
    letters = MAX_SOCKET_PATH - len(os.fsencode(path)) - len(_AROUND_NAMES)
    if letters < _FEW_LETTERS:
        return Verdict(
            Status.WARN if letters >= 3 else Status.FAIL,
            f"{path} leaves {max(0, letters)} letters for a lab's name and two times a guest's",
            "set XDG_RUNTIME_DIR to a shorter path",
        )
    return _others_keep_out(path) or _writable(path, "XDG_RUNTIME_DIR") or Verdict(Status.OK, path)


def check_state(subject: Subject) -> Verdict:
    """Look whether logs and disks can be written, and how much of them."""
    path = subject.state
    if trouble := _writable(path, "XDG_STATE_HOME"):
        return trouble
    room = os.statvfs(_nearest(path))
    free = room.f_bavail * room.f_frsize >> 20
    detail = f"{path}, {free} MiB free"
    if free < _LOW_DISK_MIB:
        return Verdict(Status.WARN, detail, "make room there, or set XDG_STATE_HOME to a larger place")
    return Verdict(Status.OK, detail)


def _others_keep_out(path: str) -> Verdict | None:
    """Apply the rules of a runtime directory to one that exists."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISDIR(status.st_mode):
        return Verdict(Status.FAIL, f"{path} is not a directory of its own", "remove it")
    if status.st_uid != os.getuid():
        return Verdict(
            Status.FAIL, f"{path} belongs to user {status.st_uid}", "remove it or set XDG_RUNTIME_DIR"
        )
    if status.st_mode & 0o077:
        return Verdict(Status.FAIL, f"{path} is open to other users", f"chmod 700 {path}")
    return None


def _writable(path: str, variable: str) -> Verdict | None:
    """Make a directory there, or where the path begins to exist, and remove it."""
    place = _nearest(path)
    try:
        os.rmdir(tempfile.mkdtemp(prefix="doctor-", dir=place))
    except OSError as error:
        return Verdict(
            Status.FAIL,
            f"{path} cannot be used: no directory can be made in {place}: {error.strerror}",
            f"set {variable} to a folder that you may write to",
        )
    return None


def _nearest(path: str) -> str:
    path = os.path.abspath(path)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return path
