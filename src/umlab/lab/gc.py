"""Remove what dead labs and runs left: their directories, guests and memory, and what is half-made.

A lab is dead when both its locks can be taken, and they are kept while its directory is removed; so is a run
whose directory can be locked.  What is not surely dead, or not ours, is left alone; links are not followed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import signal
import socket
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from umlab.daemon.disk import DISKS, SNAPSHOTS
from umlab.daemon.place import DAEMON_LOCK, GUESTS, KEEPER_LOCK, RUNS, runtime_base, state_base
from umlab.errors import LabError
from umlab.guest.disk.staging import PREFIX, TEMPORARY_PREFIX, abandoned, remove, temporary_folder
from umlab.guest.place import IMAGES, data_base
from umlab.guest.rundir import memory_parent
from umlab.guest.watch import group_members

_log = logging.getLogger(__name__)

#: Held by a living keeper and daemon.
_LOCKS = (KEEPER_LOCK, DAEMON_LOCK)
#: As :class:`umlab.guest.rundir.RunDirectory` makes them.
_MEMORY = re.compile(r"umlab-(?P<umid>[A-Za-z0-9][A-Za-z0-9._-]{0,23})-[a-z0-9_]{8}")
#: A demo's own folder has a name like a memory directory's.
_NO_GUEST = "demo"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KILL_TIMEOUT = 10.0
_KILL_POLL = 0.01


@dataclass(frozen=True, slots=True)
class Removed:
    """One thing that was removed, or would be.

    Attributes:
        kind: ``lab``, ``run`` (of ``umlab run``), ``switch`` (its directory only had dead sockets), ``guest``
            (a process group), ``memory`` (a guest's memory directory) or ``unfinished`` (an image or a
            snapshot that nobody will finish, and what mmdebstrap has unpacked for one).
        name: The lab, switch or guest; a run has its guest's name.
        where: A path; for a guest, its run directory.
        group: The guest's process group, else ``None``.
    """

    kind: str
    name: str
    where: str
    group: int | None = None


def collect(*, dry_run: bool = False) -> list[Removed]:
    """Remove what dead labs of this user left, and return it; blocks until killed guests are gone.

    What cannot be removed is logged, and looked at again the next time.

    Args:
        dry_run: Only return what would be removed.
    """
    base = os.path.abspath(runtime_base())
    sweep = _Sweep(base, dry_run)
    with contextlib.ExitStack() as stack:
        directory = _open_own(stack, base)
        if directory is not None:
            sweep.take_runs(directory)
            for name in sorted(set(os.listdir(directory)) - {RUNS}):
                sweep.take_lab(directory, name)
    sweep.take_memory()
    sweep.take_unfinished()
    return sweep.removed


def collect_runs() -> None:
    """Remove what dead runs of this user left: a run does so for those before it."""
    base = os.path.abspath(runtime_base())
    sweep = _Sweep(base, dry_run=False)
    with contextlib.ExitStack() as stack:
        directory = _open_own(stack, base)
        if directory is not None:
            sweep.take_runs(directory)
    if sweep.removed:
        sweep.take_memory()


class _Sweep:
    """One run.

    Attributes:
        removed: What it has removed so far.
    """

    def __init__(self, base: str, dry_run: bool) -> None:
        self.removed: list[Removed] = []
        self._base = base
        self._dry_run = dry_run
        #: Guests of labs that live, and process groups that are gone, or would be.
        self._living: set[str] = set()
        self._ended: set[int] = set()

    def take_lab(self, parent: int, name: str) -> None:
        """Remove a lab's directory, and end its guests, if it is dead."""
        path = os.path.join(self._base, name)
        with contextlib.ExitStack() as stack:
            directory = _open_own(stack, name, parent)
            if directory is None:
                return
            if not any(_exists(lock, directory) for lock in _LOCKS):
                if _is_dead_switch(directory):
                    self._remove_directory(parent, directory, Removed("switch", name, path))
                return
            guests = _open_guests(stack, directory)
            if not self._lock(stack, directory, guests.values()):
                self._living.update(guests)
                return
            for umid, run in guests.items():
                self._end_guest(umid, os.path.join(path, GUESTS, umid), run)
            self._remove_directory(parent, directory, Removed("lab", name, path))

    def take_runs(self, parent: int) -> None:
        """Remove the directories of dead runs, and end their guests; not while a run begins."""
        path = os.path.join(self._base, RUNS)
        with contextlib.ExitStack() as stack:
            directory = _open_own(stack, RUNS, parent)
            if directory is None:
                return
            names = sorted(os.listdir(directory))
            alone = _lock(directory)
            for name in names:
                run = _open_own(stack, name, directory)
                if run is None:
                    continue
                if not alone or not _lock(run):
                    self._living.add(name)
                    continue
                run_path = os.path.join(path, name)
                self._end_guest(name, run_path, run)
                if not self._dry_run:
                    _remove_entry(name, directory)
                self._note(directory, name, Removed("run", name, run_path))

    def take_memory(self) -> None:
        """Remove the memory directories that no process can be using."""
        parent_path = os.path.realpath(memory_parent())
        with contextlib.ExitStack() as stack:
            try:
                parent = os.open(parent_path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                return
            stack.callback(os.close, parent)
            # Listed before the processes are: what is made meanwhile is not looked at.
            found = [name for name in sorted(os.listdir(parent)) if _is_memory(name, parent)]
            used = _used_paths(self._ended) if found else set()
            for name in found:
                umid = _umid_of(name)
                path = os.path.join(parent_path, name)
                # Its owner has the guest's run directory open for as long as the memory directory exists.
                if umid not in self._living and not any(
                    each == path or each.startswith(f"{path}/") or os.path.basename(each) == umid
                    for each in used
                ):
                    if not self._dry_run:
                        shutil.rmtree(name, dir_fd=parent, onerror=_warn)
                    self._note(parent, name, Removed("memory", umid, path))

    def take_unfinished(self) -> None:
        """Remove images and copies of disks whose making was killed; whole ones are nobody's waste."""
        places = [(temporary_folder(), TEMPORARY_PREFIX)]
        # Without a home directory there is nothing.
        with contextlib.suppress(LabError):
            places.append((data_base() / IMAGES, PREFIX))
        with contextlib.suppress(LabError):
            for lab in sorted(state_base().glob("*")):
                places += [(lab / kind, PREFIX) for kind in (DISKS, SNAPSHOTS)]
        for place, prefix in places:
            for left in abandoned(place, prefix):
                if not self._dry_run:
                    remove(left)
                if self._dry_run or not left.exists():
                    self.removed.append(Removed("unfinished", left.name, str(left)))

    def _lock(self, stack: contextlib.ExitStack, directory: int, guests: Collection[int]) -> bool:
        """Take a lab's locks, made where missing, and its guests', for as long as the stack lasts.

        Returns ``False`` where one is held.  Then none is even tried: while we had another one, a lab
        that starts could not take it.
        """
        present = [name for name in _LOCKS if _exists(name, directory)]
        missing = [] if self._dry_run else [name for name in _LOCKS if name not in present]
        try:
            fds = [_open_lock(stack, name, directory, 0) for name in present]
            if any(map(_is_locked, [*fds, *guests])):
                return False
            fds += [_open_lock(stack, name, directory, os.O_CREAT | os.O_EXCL) for name in missing]
        except OSError:
            return False
        return all(map(_lock, [*fds, *guests]))

    def _end_guest(self, umid: str, path: str, run: int) -> None:
        for group in _groups_of(path, run):
            if not self._dry_run and not _kill(group):
                _log.warning("guest %s: processes of group %d do not die", umid, group)
                continue
            self._ended.add(group)
            self.removed.append(Removed("guest", umid, path, group))

    def _remove_directory(self, parent: int, directory: int, what: Removed) -> None:
        """Remove a directory, its locks last: until then nobody can start in it."""
        if not self._dry_run:
            for name in set(os.listdir(directory)).difference(_LOCKS):
                _remove_entry(name, directory)
            # The locks show whose directory it is: where something resists they stay, for the next time.
            if (left := set(os.listdir(directory))).issubset(_LOCKS):
                for name in left:
                    _remove_entry(name, directory)
                with contextlib.suppress(OSError):
                    os.rmdir(what.name, dir_fd=parent)
        self._note(parent, what.name, what)

    def _note(self, parent: int, name: str, what: Removed) -> None:
        if self._dry_run or not _exists(name, parent):
            self.removed.append(what)


def _open_own(stack: contextlib.ExitStack, path: str, parent: int | None = None) -> int | None:
    """Open a directory that is ours and no link, for as long as the stack lasts; ``None`` for all else."""
    try:
        directory = os.open(path, _DIRECTORY, dir_fd=parent)
    except OSError:
        return None
    stack.callback(os.close, directory)
    return directory if os.fstat(directory).st_uid == os.geteuid() else None


def _open_guests(stack: contextlib.ExitStack, lab: int) -> dict[str, int]:
    guests = _open_own(stack, GUESTS, lab)
    names = os.listdir(guests) if guests is not None else []
    opened = {umid: _open_own(stack, umid, guests) for umid in names}
    return {umid: run for umid, run in opened.items() if run is not None}


def _open_lock(stack: contextlib.ExitStack, name: str, lab: int, flags: int) -> int:
    flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=lab)
    stack.callback(os.close, fd)
    return fd


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_locked(fd: int) -> bool:
    """Say whether the kernel lists a lock on a file; by inode alone, so it may be another file's."""
    with open("/proc/locks") as file:
        inode = str(os.fstat(fd).st_ino)
        return any(line.split()[-3].rpartition(":")[2] == inode for line in file)


def _is_dead_switch(directory: int) -> bool:
    """Say whether there are sockets in a directory, nothing else, and nobody serves them.

    Takes the lock under which switches bind theirs, until the directory is closed.
    """
    names = os.listdir(directory)
    return bool(names) and _lock(directory) and all(_is_dead_socket(name, directory) for name in names)


def _is_dead_socket(name: str, directory: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            return False
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
            # Whatever the socket's kind: one that lives answers a stream with another error.
            probe.connect(f"/proc/self/fd/{directory}/{name}")
    except ConnectionRefusedError:
        return True
    except OSError:
        pass
    return False


def _groups_of(path: str, run: int) -> Iterator[int]:
    """Yield the process groups of the guests that have a run directory."""
    argument, place = f"uml_dir={path}/".encode(), os.fstat(run)
    groups = set()
    for pid in _pids():
        # A process may end at any moment.
        with contextlib.suppress(OSError):
            if argument not in _command_of(pid):
                continue
            group = os.getpgid(pid)
            # In another mount namespace the same path may be another lab's.
            same_place = os.path.samestat(os.stat(f"/proc/{pid}/cwd"), place)
            ours = os.stat(f"/proc/{pid}").st_uid == os.geteuid()
            # A guest is started as the leader of its group; the leader may be dead.
            leads = group == os.getsid(pid) and (group == pid or not _is_running(group))
            if same_place and ours and leads and group != os.getpgrp():
                groups.add(group)
    yield from sorted(groups)


def _kill(group: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    end = time.monotonic() + _KILL_TIMEOUT
    while group_members(group):
        if time.monotonic() > end:
            return False
        time.sleep(_KILL_POLL)
    return True


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _command_of(pid: int) -> list[bytes]:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read().split(b"\0")


def _is_running(pid: int) -> bool:
    """Say whether there is a process; one that is dead and not waited for has no command line."""
    try:
        return _command_of(pid) != [b""]
    except OSError:
        return False


def _is_memory(name: str, parent: int) -> bool:
    if not _MEMORY.fullmatch(name) or _umid_of(name) == _NO_GUEST:
        return False
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_IFMT(status.st_mode) == stat.S_IFDIR and (
        status.st_uid == os.geteuid() and stat.S_IMODE(status.st_mode) == 0o700
    )


def _umid_of(name: str) -> str:
    return name.removeprefix("umlab-").rpartition("-")[0]


def _used_paths(ended: set[int]) -> set[str]:
    """Return the paths that processes have open, work in, or have for their temporary files.

    Args:
        ended: Process groups that do not count.
    """
    used: set[str] = set()
    for pid in _pids():
        # It may end at any moment, and of other users' processes little can be seen.
        with contextlib.suppress(OSError):
            if os.getpgid(pid) in ended:
                continue
            used.add(os.readlink(f"/proc/{pid}/cwd"))
            with open(f"/proc/{pid}/environ", "rb") as file:
                for variable in file.read().split(b"\0"):
                    if variable.startswith(b"TMPDIR="):
                        used.add(os.path.realpath(os.fsdecode(variable.removeprefix(b"TMPDIR="))))
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    used.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return used


def _exists(name: str, parent: int) -> bool:
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def _remove_entry(name: str, parent: int) -> None:
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=parent, onerror=_warn)
        else:
            os.unlink(name, dir_fd=parent)
    except OSError as error:
        _warn(None, name, (OSError, error, None))


def _warn(_call: object, path: str, info: tuple[object, BaseException, object]) -> None:
    _log.warning("cannot remove %s: %s", path, info[1])
