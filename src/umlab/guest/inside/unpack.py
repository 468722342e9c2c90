"""Files that a guest sends, put where the user wants them and nowhere else.

They are made in a new folder beside their place, which nobody else knows, and move there when all is there:
whatever ends us before leaves no half file, and the next one removes what a killed one has left.  The guest
is hostile: no name leads out of that folder, no link of its own is followed, none leads out, and there are no
devices and no programs that take another user's rights.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from umlab.errors import RemoteProtocolError
from umlab.guest.disk.staging import abandoned, remove, stage
from umlab.guest.inside.archive import MAX_DEPTH, Member

#: What of a mode is kept; and what the owner has of his own in any case.
_MODE, _OWN_MODE, _OWN_FOLDER = 0o755, 0o600, 0o700
_CONTENT = "content"
#: What the folders' names begin with; those that a guest makes in one that is shared with it have a number.
_PREFIX = ".umlab-copy-"
#: Bytes of nothing but zeros that become a hole.
_HOLE = 4096
_MAX_TIME = 1 << 40
#: Errors after which nothing else can be written either.
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}


class Unpacker:
    """Takes the members of one archive, of a file or a folder; a context manager that removes what is left.

    Args:
        place: Where it goes: a path that may be there already.
        on_problem: Is told what is left out, and what cannot be put in its place.

    Attributes:
        files: How many files there are, each once however many names it has.
        size: Bytes in them, holes among them.

    Raises:
        OSError: There is no folder for it, or no room.
    """

    def __init__(self, place: str, on_problem: Callable[[str], None]) -> None:
        self.files = 0
        self.size = 0
        self._place = place
        self._on_problem = on_problem
        parent = Path(os.path.dirname(place) or ".")
        for left in abandoned(parent, _PREFIX):
            remove(left)
        self._stage = contextlib.ExitStack()
        self._folder = str(self._stage.enter_context(stage(parent, _PREFIX)))
        self._is_folder: bool | None = None
        self._file = -1
        self._member: Member | None = None
        # Folders get their modes and times when everything is in them.
        self._folders: list[tuple[tuple[str, ...], Member]] = []

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_file(whole=False)
        self._stage.close()

    def take(self, event: Member | bytes) -> None:
        """Take a member, or a piece of the last one's contents.

        Raises:
            OSError: There is no room.
            RemoteProtocolError: A file was asked for, and more came.
        """
        if isinstance(event, bytes):
            self._write(event)
            return
        self._close_file(whole=True)
        if self._is_folder is None:
            self._is_folder = event.kind == "directory"
        elif not self._is_folder:
            raise RemoteProtocolError("the guest sent more than the file that was asked for")
        parts = self._parts(event)
        if parts is not None:
            self._make(parts, event)

    def finish(self) -> None:
        """Put everything in its place.

        Raises:
            OSError: What there is cannot be read.
            RemoteProtocolError: Nothing came.
        """
        self._close_file(whole=True)
        for parts, member in reversed(self._folders):
            with contextlib.suppress(OSError), _opened_folder(self._folder, parts) as fd:
                os.fchmod(fd, member.mode & _MODE | _OWN_FOLDER)
                os.utime(fd, times=_times(member))
        if self._is_folder is None:
            raise RemoteProtocolError("the guest sent nothing")
        made = os.path.join(self._folder, _CONTENT)
        if os.path.lexists(made):
            self._move(made, self._place)

    def _parts(self, member: Member) -> tuple[str, ...] | None:
        """Return where a member is, below our folder; ``None`` where it is refused."""
        if not self._is_folder:
            return (_CONTENT,)
        parts = _below(member.name)
        if parts is None:
            self._on_problem(f"{member.name}: its name leads elsewhere; left out")
            return None
        if len(parts) > MAX_DEPTH:
            self._on_problem(f"{member.name}: lies too deep; left out")
            return None
        return (_CONTENT, *parts)

    def _make(self, parts: tuple[str, ...], member: Member) -> None:
        try:
            with _opened_folder(self._folder, parts[:-1]) as folder:
                self._make_in(folder, parts, member)
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise
            self._on_problem(f"{member.name}: {error.strerror}; left out")

    def _make_in(self, folder: int, parts: tuple[str, ...], member: Member) -> None:
        name = parts[-1]
        match member.kind:
            case "directory":
                try:
                    os.mkdir(name, _OWN_FOLDER, dir_fd=folder)
                except FileExistsError:
                    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                        raise
                self._folders.append((parts, member))
            case "file":
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(name, flags, 0o600, dir_fd=folder)
                self._member = member
            case "symlink":
                if not _leads_below(parts[1:-1], member.target):
                    self._on_problem(f"{member.name}: a link to {member.target}; left out")
                else:
                    os.symlink(member.target, name, dir_fd=folder)
            case "hardlink":
                target = _below(member.target)
                if not target:
                    self._on_problem(f"{member.name}: a link to {member.target}; left out")
                    return
                with _opened_folder(self._folder, (_CONTENT, *target[:-1])) as other:
                    if not stat.S_ISREG(os.stat(target[-1], dir_fd=other, follow_symlinks=False).st_mode):
                        # A second name of a link would lead elsewhere than the first one.
                        self._on_problem(f"{member.name}: a link to what is no file; left out")
                        return
                    os.link(target[-1], name, src_dir_fd=other, dst_dir_fd=folder, follow_symlinks=False)
            case "other":
                self._on_problem(f"{member.name}: neither a file, a folder nor a link; left out")

    def _write(self, data: bytes) -> None:
        if self._file < 0:
            # Of a member that was left out.
            return
        if len(data) >= _HOLE and not data.strip(b"\0"):
            os.lseek(self._file, len(data), os.SEEK_CUR)
            return
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]

    def _close_file(self, *, whole: bool) -> None:
        fd, self._file = self._file, -1
        if fd < 0:
            return
        try:
            if whole and (member := self._member) is not None:
                os.ftruncate(fd, member.size)
                os.fchmod(fd, member.mode & _MODE | _OWN_MODE)
                os.utime(fd, times=_times(member))
                self.files += 1
                self.size += member.size
        finally:
            os.close(fd)

    def _move(self, source: str, place: str) -> None:
        """Move what was made to its place; a folder that is there keeps what it has."""
        if not (_is_folder(source) and _is_folder(place)):
            try:
                os.rename(source, place)
            except OSError as error:
                # What else there is finds its place all the same.
                self._on_problem(f"{place}: {error.strerror}")
            return
        for entry in sorted(os.listdir(source)):
            self._move(os.path.join(source, entry), os.path.join(place, entry))


def _below(path: str) -> tuple[str, ...] | None:
    """Return the parts of a path that stays below where it begins, ``None`` of any other."""
    if path.startswith("/") or "\0" in path:
        return None
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return tuple(parts)


def _leads_below(folder: tuple[str, ...], target: str) -> bool:
    """Say whether a link in a real folder leads to what is below its beginning, whatever links there are."""
    if "\0" in target or target.startswith("/"):
        return False
    parts = [part for part in target.split("/") if part not in ("", ".")]
    # Behind a name, which may be another link's, a step up is one from somewhere else.
    ups = len(parts) - len(list(itertools.dropwhile(lambda part: part == "..", parts)))
    return ups <= len(folder) and ".." not in parts[ups:]


@contextlib.contextmanager
def _opened_folder(path: str, parts: tuple[str, ...]) -> Iterator[int]:
    """Open a folder, step by step, so that no link is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(path, flags)
    try:
        for part in parts:
            below = os.open(part, flags, dir_fd=fd)
            os.close(fd)
            fd = below
        yield fd
    finally:
        os.close(fd)


def _is_folder(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False


def _times(member: Member) -> tuple[float, float]:
    seconds = min(max(member.mtime, 0), _MAX_TIME)
    return seconds, seconds
