"""A guest's run directory: where its kernel makes the umid directory with pid file and console socket."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import stat
import tempfile
import time

from umlab._name import check_name
from umlab.errors import LabError
from umlab.wire.sockaddr import MAX_SOCKET_PATH

_log = logging.getLogger(__name__)

#: Seconds to wait for a lock that somebody holds only to look, or has just been told to let go.
_LOCK_PATIENCE = 0.5


class RunDirectory:
    """``BASE/UMID/``, mode 0700, for one guest at a time, and a place for its memory file.

    ``BASE/UMID/`` is the kernel's ``uml_dir``: it makes ``BASE/UMID/UMID/{pid,mconsole}``.  A lock on the
    directory lasts as long as this object's process, so that what a dead owner left is told from what a
    live one uses.  The memory file gets a directory of its own where the kernel would put the file
    (``$TMPDIR``, ``$TMP``, ``$TEMP``, else ``/dev/shm``, else ``/tmp``): the guest may write there and
    must not write beside it.

    Args:
        base: An existing directory, absolute.
        umid: The guest.

    Raises:
        LabError: The name is not usable, the console socket's path would be too long for the kernel
            (which would boot without a console), the name is in use, or a directory cannot be made.
    """

    def __init__(self, base: str, umid: str) -> None:
        self._set_paths(base, umid)
        size = len(os.fsencode(self.mconsole_path))
        if size > MAX_SOCKET_PATH:
            raise LabError(
                f"guest {umid}: its console socket {self.mconsole_path} would have {size} bytes, "
                f"a socket path has at most {MAX_SOCKET_PATH}"
            )
        try:
            self._lock = self._take()
        except OSError as error:
            raise LabError(
                f"guest {umid}: cannot make its run directory {self.path}: {error.strerror}"
            ) from None
        try:
            self.memory_path = tempfile.mkdtemp(prefix=f"umlab-{umid}-", dir=memory_parent())
        except OSError as error:
            self._release()
            raise LabError(f"guest {umid}: no place for its memory file: {error}") from None

    @classmethod
    def adopt(cls, base: str, umid: str, memory_path: str, lock: int) -> RunDirectory:
        """Return the directory of a running guest that an earlier process of ours has made.

        Args:
            base: As it was given then.
            umid: The guest.
            memory_path: Where its memory file is.
            lock: The descriptor that holds the directory's lock; belongs to the object from now on.
        """
        run = cls.__new__(cls)
        run._set_paths(base, umid)
        run.memory_path, run._lock = memory_path, lock
        return run

    @property
    def lock(self) -> int:
        """The descriptor whose duplicates hold the directory; it stays this object's."""
        return self._lock

    def _set_paths(self, base: str, umid: str) -> None:
        check_name("guest", umid)
        self.umid = umid
        self.path = os.path.join(os.path.abspath(base), umid)
        self.mconsole_path = os.path.join(self.path, umid, "mconsole")
        self.share = os.path.join(self.path, "share")

    def umid_of(self, pid: int) -> str | None:
        """Return the umid under which a kernel runs here, ``None`` when it has not got that far.

        A kernel that finds its name in use boots on under a random one, so look before relying on it.

        Args:
            pid: The kernel's main process.
        """
        for name in os.listdir(self.path):
            if _read_pid(os.path.join(self.path, name, "pid")) == pid:
                return name
        return None

    def let_go(self) -> None:
        """Leave everything to whoever holds a duplicate of the lock.  Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Remove everything, after the guest's end.  Idempotent."""
        shutil.rmtree(self.memory_path, ignore_errors=True)
        self._release()

    def _release(self) -> None:
        if self._lock < 0:
            return
        # What a hostile guest left may resist; links in it are not followed.
        shutil.rmtree(
            self.path, onerror=lambda _call, path, info: _log.warning("cannot remove %s: %s", path, info[1])
        )
        os.close(self._lock)
        self._lock = -1

    def _take(self) -> int:
        with contextlib.suppress(FileExistsError):
            os.mkdir(self.path, 0o700)
        lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            self._take_over(lock)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _take_over(self, lock: int) -> None:
        """Lock the directory and empty it of what a dead owner left."""
        end = time.monotonic() + _LOCK_PATIENCE
        while not _lock(lock):
            if time.monotonic() >= end:
                raise LabError(f"guest {self.umid} runs already: {self.path} is in use")
            time.sleep(0.01)
        if os.fstat(lock).st_uid != os.geteuid():
            raise LabError(f"guest {self.umid}: {self.path} belongs to user {os.fstat(lock).st_uid}")
        pid = _read_pid(os.path.join(self.path, self.umid, "pid"))
        if pid is not None and _is_guest_of(pid, self.path):
            raise LabError(
                f"guest {self.umid} of an earlier run is alive as process group {pid}; end it first"
            )
        os.fchmod(lock, 0o700)
        for name in os.listdir(lock):
            if stat.S_ISDIR(os.stat(name, dir_fd=lock, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=lock)
            else:
                os.unlink(name, dir_fd=lock)


def memory_parent() -> str:
    """Return the directory in which guests' memory files go."""
    for variable in ("TMPDIR", "TMP", "TEMP"):
        if os.environ.get(variable):
            return os.path.abspath(os.environ[variable])
    return "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else "/tmp"


def _lock(directory: int) -> bool:
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(path: str) -> int | None:
    """Read a pid file that the guest's side wrote: at most a few digits are believed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        text = file.read(32).strip()
    return int(text) if text.isdigit() and len(text) < 11 else None


def _is_guest_of(pid: int, uml_dir: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return f"uml_dir={uml_dir}/".encode() in file.read().split(b"\0")
    except OSError:
        return False
