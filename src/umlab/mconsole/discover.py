"""Find the guests of this machine by their run directories, whoever started them.

Some directories in which run directories lie, such as ``/tmp/uml``, belong to everybody, so nothing in
them is believed: links are not followed, what another user owns is named and not touched, and a name is
looked up once, below a directory that is held open.

Source: Linux arch/um/os-Linux/umid.c.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import socket
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from umlab._boot import boot_of
from umlab.mconsole.locate import SOCKET_NAME

_log = logging.getLogger(__name__)

__all__ = ["Found", "State", "discover", "process_roots", "usual_roots"]

#: Files of a run directory beside the socket.
PID_NAME = "pid"
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: Entries of one directory that are looked at: in a public one anybody may make any number.
_MAX_ENTRIES = 4096
#: Bytes of a command line or environment that are read.
_MAX_WORDS = 64 * 1024

State = Literal["listening", "dead", "no socket", "no console", "another user's", "no access"]


@dataclass(frozen=True, slots=True)
class Found:
    """A run directory.

    Attributes:
        umid: The guest's name; text that anybody may have chosen.
        path: Of its console's socket, there or not.
        root: The directory that has the run directory, absolute.
        pid: Its main process by the directory's pid file, ``None`` of a dead guest and unless the
            directory's owner has such a process.
        state: ``listening``: somebody holds the console's socket, which says nothing of answers.
            ``dead``: nobody holds it any more.
            ``no socket``: the guest boots, has no console, or its end was interrupted.
            ``no console``: what is in the socket's place is something else.
            ``another user's``: not talked to.
            ``no access``: it is ours and its mode keeps us out.
    """

    umid: str
    path: str
    root: str
    pid: int | None
    state: State


def usual_roots() -> list[str]:
    """Return where guests that were started by hand have their run directories, made or not."""
    home = os.environ.get("HOME")
    return [*([f"{home}/.uml"] if home else []), "/tmp/uml"]


def process_roots() -> list[str]:
    """Return the directories that this user's running kernels were told to use, sorted; reads ``/proc``."""
    roots: set[str] = set()
    for name in os.listdir("/proc"):
        # It may end at any moment.
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                roots.update(_told_roots(int(name)))
    return sorted(roots)


def discover(roots: Iterable[str]) -> list[Found]:
    """Return the run directories in some directories, in the order of these, then by name; never waits.

    Args:
        roots: Directories such as ``~/.uml``, each the ``uml_dir`` of guests.  What is not there or not
            to be read has none, and one that is named twice counts once.
    """
    found: list[Found] = []
    seen: set[tuple[int, int]] = set()
    for root in map(os.path.abspath, roots):
        try:
            directory = open_root(root)
        except OSError:
            continue
        try:
            status = os.fstat(directory)
            if (status.st_dev, status.st_ino) not in seen:
                seen.add((status.st_dev, status.st_ino))
                found += sorted(_below(root, directory), key=lambda each: each.umid)
        finally:
            os.close(directory)
    return found


def open_root(root: str) -> int:
    """Return a descriptor of a directory; a link to it is followed if we, or the system, have made it.

    Args:
        root: An absolute path without a slash at its end.

    Raises:
        OSError: There is none.
    """
    ours = os.lstat(root).st_uid in (0, os.geteuid())
    return os.open(root, DIRECTORY_FLAGS & ~os.O_NOFOLLOW if ours else DIRECTORY_FLAGS)


def state_of(directory: int) -> State:
    """Return the state of an open run directory; never waits, and its guest notices nothing."""
    if os.fstat(directory).st_uid != os.geteuid():
        return "another user's"
    try:
        status = os.stat(SOCKET_NAME, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return "no socket"
    except OSError:
        return "no access"
    if status.st_uid != os.geteuid():
        return "another user's"
    if not stat.S_ISSOCK(status.st_mode):
        return "no console"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            # By the descriptor: the path may have become another's meanwhile, or be too long.
            sock.connect(f"/proc/self/fd/{directory}/{SOCKET_NAME}")
        except OSError as error:
            return _STATES.get(error.errno or 0, "no console")
    return "listening"


_STATES: dict[int, State] = {
    errno.ECONNREFUSED: "dead",
    errno.ENOENT: "no socket",
    errno.EACCES: "no access",
}


def read_pid(directory: int) -> int | None:
    """Return what an open run directory's pid file says; at most a few digits are believed."""
    text = _read(PID_NAME, 32, directory).strip()
    return int(text) if text.isdigit() and len(text) < 11 else None


def _below(root: str, parent: int) -> Iterator[Found]:
    try:
        with os.scandir(parent) as entries:
            names = [
                each.name
                for each in itertools.islice(entries, _MAX_ENTRIES)
                if each.is_dir(follow_symlinks=False)
            ]
            if next(entries, None) is not None:
                _log.warning("%s has more than %d entries, not all are looked at", root, _MAX_ENTRIES)
    except OSError:
        return
    for name in names:
        path = os.path.join(root, name, SOCKET_NAME)
        # It may go away at any moment.
        with contextlib.suppress(OSError):
            owner = os.stat(name, dir_fd=parent, follow_symlinks=False).st_uid
            try:
                directory = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
            except PermissionError:
                # A kernel makes directories that everybody can read: another user's is no guest's.
                if owner == os.geteuid():
                    yield Found(name, path, root, None, "no access")
                continue
            try:
                if _is_run_directory(directory):
                    state = state_of(directory)
                    yield Found(name, path, root, _living_pid(directory, state), state)
            finally:
                os.close(directory)


def _is_run_directory(directory: int) -> bool:
    for name in (PID_NAME, SOCKET_NAME):
        with contextlib.suppress(OSError):
            os.stat(name, dir_fd=directory, follow_symlinks=False)
            return True
    return False


def _living_pid(directory: int, state: State) -> int | None:
    # A dead guest's number is another process's.
    pid = None if state == "dead" else read_pid(directory)
    with contextlib.suppress(OSError):
        if pid is not None and os.stat(f"/proc/{pid}").st_uid == os.fstat(directory).st_uid:
            return pid
    return None


def _told_roots(pid: int) -> Iterator[str]:
    words = _read(f"/proc/{pid}/cmdline", _MAX_WORDS).split(b"\0")
    told = [word.removeprefix(b"uml_dir=") for word in words if word.startswith(b"uml_dir=")]
    if not told and any(word.startswith(b"umid=") for word in words):
        told = [b"~/.uml"]
    # Other programs may have such words, too.
    if not told or boot_of(pid) is None:
        return
    home = next(
        (
            word.removeprefix(b"HOME=")
            for word in _read(f"/proc/{pid}/environ", _MAX_WORDS).split(b"\0")
            if word.startswith(b"HOME=")
        ),
        b"",
    )
    # Where its home directory is not known, a name with a tilde is one that nothing has.
    for root in told:
        full = home + root[1:] if root.startswith(b"~") and home else root
        yield os.path.abspath(os.path.join(os.readlink(f"/proc/{pid}/cwd"), os.fsdecode(full)))


def _read(path: str, size: int, directory: int | None = None) -> bytes:
    """Return the beginning of a file, nothing where there is none; no FIFO holds us up."""
    with contextlib.suppress(OSError):
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(path, flags, dir_fd=directory)
        try:
            return os.read(descriptor, size)
        finally:
            os.close(descriptor)
    return b""
