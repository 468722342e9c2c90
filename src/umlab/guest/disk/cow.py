"""COW files: made, opened, and given another backing file.

What a file says is not trusted: its numbers are used as far as the file itself bears them out.

Source: Linux arch/um/drivers/ubd_kern.c, cow_user.c.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from umlab.errors import LabError, RemoteProtocolError
from umlab.guest.disk.file_lock import lock_file, user_of
from umlab.guest.disk.holes import DataMap
from umlab.guest.disk.new_file import new_file
from umlab.wire.cow import (
    MAX_HEADER,
    CowHeader,
    changed_sectors,
    parse_cow_header,
    serialize_cow_header,
)

#: Called with how many bytes are done and how many there are.
Progress = Callable[[int, int], None]

#: Bytes that are read at a time.
_CHUNK = 1 << 20
#: The last second since 1970 that a header can keep.
_LAST_TIME = 0xFFFFFFFF
#: No file is longer.
_MAX_LENGTH = (1 << 63) - 1
#: What kernels keep of a file at a time.
_PAGE = 4096
#: At most so long a bitmap has one word only, and a kernel writes two.
_SHORT_BITMAP = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a COW file or its backing file.

    Attributes:
        problem: What it is, in the kernel's words where that has any.
        fix: What would help.
    """

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.fix}"


class CowFile:
    """An open COW file; a context manager that closes it.

    Attributes:
        path: What it is called.
        fd: Its descriptor.
        header: What it says of itself.
        length: Its bytes.

    Args:
        path: What it is called.
        write: Open it for writing as well.

    Raises:
        LabError: It cannot be opened, or is no COW file that a kernel could use.
    """

    def __init__(self, path: str, *, write: bool = False) -> None:
        self.path = path
        self.fd = _open(path, write)
        try:
            self.length = os.lseek(self.fd, 0, os.SEEK_END)
            with reading(path):
                self.header = parse_cow_header(os.pread(self.fd, MAX_HEADER, 0))
            if self.header.data_offset + self.header.size > _MAX_LENGTH:
                raise RemoteProtocolError("a backing file of an impossible size")
        except BaseException as error:
            os.close(self.fd)
            if isinstance(error, RemoteProtocolError):
                raise LabError(f"{path} is no COW file of use: {error}") from None
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    @property
    def backing(self) -> str:
        """The backing file's path."""
        return os.fsdecode(self.header.backing)

    def changed(self) -> Iterator[tuple[int, int]]:
        """Yield runs of changed sectors: the number of the first one, and how many they are."""
        start = self.header.bitmap_offset
        end = min(start + self.header.bitmap_length, self.length)
        for at, length in DataMap(self.fd).stretches(start, end):
            for offset in range(at, at + length, _CHUNK):
                piece = os.pread(self.fd, min(_CHUNK, at + length - offset), offset)
                before = (offset - start) * 8
                for first, count in changed_sectors(piece, self.header.sectors - before):
                    yield before + first, count

    def unchanged(self, size: int) -> Iterator[tuple[int, int]]:
        """Yield the stretches of the backing file that still count: where each begins, and its bytes.

        Args:
            size: How many bytes the backing file has.
        """
        at = 0
        for first, count in self.changed():
            begin = first * self.header.sector_size
            if begin > at:
                yield at, begin - at
            at = begin + count * self.header.sector_size
        if at < size:
            yield at, size - at

    def problems(self) -> Iterator[Problem]:
        """Yield what is wrong with the file itself, whatever its backing file is."""
        header = self.header
        yield from layout_problems(header)
        covered = header.bitmap_length * 8
        if covered < header.sectors:
            lost = header.sectors - covered
            yield Problem(
                f"the bitmap of version {header.version} has no bit for the last {lost} sectors: "
                "what a guest writes there is lost when it ends",
                f"merge it, and make a new one: {command('merge', self.path, 'NEW')}",
            )
        if cut := self.cut():
            yield cut
        elif mixed := self._mixed_pages():
            yield Problem(
                f"pages with changed sectors and others: {mixed}; kernels read wrong behind one of them",
                "merge it, and use file systems with blocks of 4096 bytes",
            )

    def _mixed_pages(self) -> int:
        """Return how many pages a guest has changed in part.

        In the middle of a request, a kernel goes on by as much as the last stretch of the page's sectors that
        lie in one file.
        """
        page, pages, last = max(1, _PAGE // self.header.sector_size), 0, -1
        for first, count in self.changed():
            for edge in (first, first + count):
                if edge % page and edge < self.header.sectors and edge // page != last:
                    last = edge // page
                    pages += 1
        return pages

    def cut(self) -> Problem | None:
        """Say where the file ends, if that is before something that a guest has written."""
        header = self.header
        if self.length < header.bitmap_offset + header.bitmap_length:
            return _cut(self.path, "in its bitmap")
        room = self.length - header.data_offset
        for first, count in self.changed():
            # Nobody has lost anything of a last sector that is not whole in the backing file either.
            if min((first + count) * header.sector_size, header.size) > room:
                sector = max(first, room // header.sector_size)
                return _cut(self.path, f"at sector {sector}, which is changed")
        return None


class Backing:
    """An open backing file; a context manager that closes it.

    Attributes:
        path: What it is called.
        fd: Its descriptor.
        size: Its bytes.
        mtime: When it was changed last, seconds since 1970.

    Args:
        path: What it is called.
        write: Open it for writing as well.

    Raises:
        LabError: It cannot be opened, or is neither a plain file nor a block device.
    """

    def __init__(self, path: str, *, write: bool = False) -> None:
        self.path = path
        self.fd = _open(path, write)
        status = os.fstat(self.fd)
        self.mtime = int(status.st_mtime)
        # A block device has its size at its end only.
        self.size = os.lseek(self.fd, 0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)

    def mismatch(self, header: CowHeader, cow: str) -> Problem | None:
        """Say why a kernel would refuse it under a COW file, or return ``None``.

        Args:
            header: The COW file's.
            cow: What that is called.
        """
        name = f'of COW header vs backing file "{self.path}"'
        if self.size != header.size:
            return Problem(
                f"Size mismatch ({header.size} vs {self.size}) {name}",
                f"{cow} is of no use with this one: put back the file as it was when {cow} was made",
            )
        if self.mtime != header.mtime:
            return Problem(
                f"mtime mismatch ({header.mtime} vs {self.mtime}) {name}",
                f"if it was changed, put back the file as it was; if only its time was, run "
                f"{shlex.join(['touch', '-d', f'@{header.mtime}', '--', self.path])}",
            )
        return None

    def is_cow(self) -> bool:
        """Tell whether it is a COW file itself, which kernels take for plain data here."""
        try:
            parse_cow_header(os.pread(self.fd, MAX_HEADER, 0))
        except RemoteProtocolError:
            return False
        return True


def layout_problems(header: CowHeader) -> Iterator[Problem]:
    """Yield what kernels cannot do with files that are laid out like this."""
    if header.sector_size != 512:
        yield Problem(
            f"its sectors have {header.sector_size} bytes, and kernels keep 512 at a time",
            "make a new one",
        )
    if header.bitmap_length <= _SHORT_BITMAP:
        yield Problem(
            f"a disk of {header.size} bytes is too small: a kernel that writes to it panics or hangs",
            f"make the backing file larger than {_SHORT_BITMAP * 8 * header.sector_size} bytes",
        )


def chain_problem(path: str) -> Problem:
    """Return what is wrong where a backing file is a COW file itself."""
    return Problem(
        f"its backing file {path} is a COW file itself, which kernels take for plain data there",
        f"merge that one first: {command('merge', path, 'NEW')}",
    )


def create_cow(path: str, backing: str, *, replace: bool = False, strict: bool = True) -> CowHeader:
    """Make an empty COW file of version 3, as kernels and ``uml_mkcow`` do.

    Args:
        path: What it is called; mode 0644 before the umask.
        backing: The backing file; its path is made absolute, a link at its end stays.
        replace: Whether the file may take the place of another one.
        strict: Refuse what kernels cannot work with; else also a time that no header can keep is cut.

    Raises:
        LabError: There is no such backing file, or it is not to be used; the file cannot be made, is
            there already, or a guest runs on it.
    """
    absolute = _absolute(backing)
    with Backing(absolute) as image:
        mtime = image.mtime if strict else image.mtime & _LAST_TIME
        header = CowHeader(3, os.fsencode(absolute), mtime, image.size)
        data = serialize_cow_header(header)
        problems = list(layout_problems(header)) if strict else []
        if strict and image.is_cow():
            problems.append(chain_problem(absolute))
        if problems:
            raise LabError(f"no COW file of {backing}: {problems[0]}")
        if replace and os.path.isfile(path):
            check_replaceable(path, image)
        try:
            with new_file(path, mode=0o644, replace=replace) as fd:
                os.pwrite(fd, data, 0)
                os.truncate(fd, header.data_offset + header.size)
        except OSError as error:
            raise cannot_make(path, error) from error
    return header


def rebase_cow(path: str, backing: str, *, unsafe: bool = False, progress: Progress | None = None) -> bool:
    """Write another backing file into a COW file's header.

    Where the new file's time of change is another one, what still counts of it is compared with the file
    that the header names.

    Args:
        path: The COW file, which no guest may run on; its owner need not be allowed to write to it.
        backing: The new backing file; its path is made absolute.
        unsafe: Take it without a comparison.
        progress: Told how far the comparison is.

    Returns:
        Whether anything had to be written.

    Raises:
        LabError: It has another size or other contents, or nobody can tell; nothing is written.
    """
    absolute = _absolute(backing)
    with _open_to_rewrite(path) as cow, Backing(absolute) as image:
        lock_file(cow.fd, path, exclusive=True)
        new = dataclasses.replace(cow.header, backing=os.fsencode(absolute), mtime=image.mtime)
        data = serialize_cow_header(new)
        problem = image.mismatch(cow.header, path)
        if problem is not None and image.size != cow.header.size:
            raise LabError(str(problem))
        if problem is not None and not unsafe:
            _compare(cow, image, problem, progress)
        if image.is_cow():
            raise LabError(str(chain_problem(absolute)))
        if new == cow.header:
            return False
        try:
            os.pwrite(cow.fd, data, 0)
            os.fsync(cow.fd)
        except OSError as error:
            raise LabError(f"cannot write to {path}: {error.strerror}") from None
    return True


def _open_to_rewrite(path: str) -> CowFile:
    """Open a COW file for writing, also a read-only one of ours, such as a snapshot.  Raises LabError."""
    with CowFile(path) as cow:
        status = os.fstat(cow.fd)
        mode = stat.S_IMODE(status.st_mode)
        if mode & stat.S_IWUSR or status.st_uid != os.geteuid():
            return CowFile(path, write=True)
        os.fchmod(cow.fd, mode | stat.S_IWUSR)
        try:
            return CowFile(path, write=True)
        finally:
            os.fchmod(cow.fd, mode)


def _compare(cow: CowFile, image: Backing, problem: Problem, progress: Progress | None) -> None:
    """Refuse a backing file whose contents differ from those of the present one where they count."""
    without = f"to take it nevertheless, use {command('rebase', '--unsafe', cow.path, image.path)}"
    try:
        old = Backing(cow.backing)
    except LabError as error:
        raise LabError(
            f"{problem.problem}, and it cannot be compared with the old one: {error}; {without}"
        ) from None
    with old, reading(cow.path):
        if old.mismatch(cow.header, cow.path) is not None:
            raise LabError(
                f"{problem.problem}, and {old.path}, which it would be compared with, was changed; {without}"
            )
        for at, length in cow.unchanged(image.size):
            for offset in range(at, at + length, _CHUNK):
                size = min(_CHUNK, at + length - offset)
                if os.pread(old.fd, size, offset) != os.pread(image.fd, size, offset):
                    raise LabError(
                        f"{image.path} is not like {old.path}: they differ near byte {offset}; {without}"
                    )
                if progress is not None:
                    progress(offset + size, image.size)


def check_replaceable(path: str, image: Backing) -> None:
    """Refuse to replace a file that a guest runs on, or that is the backing file itself.

    Raises:
        LabError: Says which.
    """
    fd = _open(path, write=False)
    try:
        if os.path.samestat(os.fstat(fd), os.fstat(image.fd)):
            raise LabError(f"{path} is the backing file itself; name another file")
        user = user_of(fd)
    finally:
        os.close(fd)
    if user is not None:
        raise LabError(f"{path} is in use by {user}; stop that first")


def cannot_make(path: str, error: OSError) -> LabError:
    """Return the error of a file that cannot be made or replaced."""
    if error.errno == errno.EEXIST:
        return LabError(f"{path} is there already; use --force to replace a plain file")
    return LabError(f"cannot make {path}: {error.strerror}; nothing is changed")


@contextmanager
def reading(path: str) -> Iterator[None]:
    """Turn what goes wrong while a file is read into an error of ours."""
    try:
        yield
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from None


def _open(path: str, write: bool) -> int:
    """Open a plain file or a block device."""
    flags = (os.O_RDWR if write else os.O_RDONLY) | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(path, flags)
    except OSError as error:
        raise LabError(f"cannot open {path}: {error.strerror}") from error
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        os.close(fd)
        raise LabError(f"{path} is neither a plain file nor a block device")
    return fd


def _absolute(path: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(os.path.realpath(folder), name)


def _cut(path: str, where: str) -> Problem:
    return Problem(f"{path} was cut short: it ends {where}", "take it from a backup")


def command(*words: str) -> str:
    """Return a command of ``umlab cow`` as it is typed into a shell."""
    return shlex.join(("umlab", "cow", *words))
