"""Files as a tar stream, as busybox's tar reads and writes it: ustar with GNU's long names.

What a guest sends is untrusted: a reader holds one header, and no name longer than a path can be.

Source: GNU tar's manual, "Basic Tar Format"; busybox archival/tar.c.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import Literal

from umlab.errors import RemoteProtocolError, TruncatedMessage

#: Bytes of a header, and what contents are filled up to.
BLOCK = 512
#: Bytes of a name; Linux has no longer path.
MAX_NAME = 4096
#: Folders within each other that are copied.  Walking and removing takes a call, and a descriptor, for each.
MAX_DEPTH = 128
#: Members for files with holes, and the unit of a part's place.
HOLES, PARTS, PART_UNIT = ".umlab-holes", ".umlab-parts", 64 * 1024
_READ_SIZE = 1 << 20
#: Bytes of the least hole that is worth a part more, and about how many of one file there are at most.
_HOLE_SIZE, _MAX_HOLES = 1 << 20, 256
_KINDS: dict[bytes, Literal["file", "directory", "symlink", "hardlink"]] = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.CONTTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
}
_OTHERS = {tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE}
_LONG = {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}


@dataclass(frozen=True, slots=True)
class Member:
    """What stands before a member's contents.

    Attributes:
        name: Its path, as it was written; bytes that are no UTF-8 are surrogates.
        kind: What it is; ``other`` is a device or a pipe.
        mode: Its permissions, setuid and the like included.
        mtime: When it was changed, seconds since 1970.
        size: Bytes of its contents, 0 where it is no file.
        target: Where a link leads.
    """

    name: str
    kind: Literal["file", "directory", "symlink", "hardlink", "other"]
    mode: int
    mtime: float
    size: int
    target: str


class ArchiveReader:
    """Takes a stream apart; pure."""

    def __init__(self) -> None:
        self._data = bytearray()
        # Bytes of contents that are still to come, and that they are filled up with.
        self._left = self._padding = 0
        self._long: dict[bytes, str] = {}
        self._awaited: bytes | None = None
        self._ended = False

    def feed(self, data: bytes) -> Iterator[Member | bytes]:
        """Yield the members that have come, each before its contents.

        Raises:
            RemoteProtocolError: No tar writes that.
        """
        self._data += data
        while not self._ended and (event := self._next()) is not None:
            if event:
                yield event
        if self._ended:
            # Programs fill the end up to some round size.
            self._data.clear()

    def finish(self) -> None:
        """Take note that there is no more.

        Raises:
            RemoteProtocolError: The archive is not whole.
        """
        if not self._ended:
            raise TruncatedMessage(len(self._data) + max(self._left, 1), len(self._data))

    def _next(self) -> Member | bytes | None:
        """Return what comes next: nothing in it where that is for nobody, ``None`` while data is missing."""
        if self._awaited is not None:
            return self._next_long()
        if self._left:
            return self._take(min(self._left, len(self._data)), content=True) if self._data else None
        if len(self._data) < self._padding + BLOCK:
            return None
        del self._data[: self._padding]
        self._padding = 0
        return self._header(self._take(BLOCK))

    def _next_long(self) -> bytes | None:
        if len(self._data) < self._left + self._padding:
            return None
        assert self._awaited is not None
        name = self._take(self._left).rstrip(b"\0")
        del self._data[: self._padding]
        self._left = self._padding = 0
        self._long[self._awaited] = name.decode("utf-8", "surrogateescape")
        self._awaited = None
        return b""

    def _take(self, size: int, *, content: bool = False) -> bytes:
        piece = bytes(self._data[:size])
        del self._data[:size]
        if content:
            self._left -= size
        return piece

    def _header(self, block: bytes) -> Member | bytes:
        if block.count(0) == BLOCK:
            self._ended = True
            return b""
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise RemoteProtocolError(f"no tar archive: {error}") from None
        if info.size < 0:
            raise RemoteProtocolError(f"no tar archive: a size of {info.size}")
        if info.type in _LONG:
            if info.size > MAX_NAME + 1:
                raise RemoteProtocolError(f"a name of {info.size} bytes in a tar archive")
            self._awaited = info.type
            self._expect(info.size)
            return b""
        name = self._long.pop(tarfile.GNUTYPE_LONGNAME, info.name)
        target = self._long.pop(tarfile.GNUTYPE_LONGLINK, info.linkname)
        if info.type in _OTHERS:
            return Member(name, "other", info.mode, info.mtime, 0, "")
        kind = _KINDS.get(info.type)
        if kind is None:
            raise RemoteProtocolError(f"a tar archive with a member of type {info.type!r}")
        size = info.size if kind == "file" else 0
        self._expect(size)
        return Member(name, kind, info.mode & 0o7777, info.mtime, size, target)

    def _expect(self, size: int) -> None:
        self._left, self._padding = size, -size % BLOCK


def write_archive(
    sources: Sequence[tuple[str, str]],
    on_problem: Callable[[str], None],
    on_file: Callable[[int], None] = lambda _: None,
) -> Iterator[bytes]:
    """Yield an archive of files and folders, with modes and times, owned by root; links are kept.

    Tar has no holes that busybox would know: a file with large ones is an empty member, and its data are
    members of :data:`PARTS`; the member :data:`HOLES` says for each such file, in words of a shell,
    ``fill NAME SIZE TIME``, and for each part its number and place, in pieces of :data:`PART_UNIT` bytes.

    Args:
        sources: Each path, which is followed where it is a link itself, and its name in the archive.
        on_problem: Is told what cannot be read, which is left out.
        on_file: Is told the size of each file, once however many names it has.
    """
    writer = _Writer(on_problem, on_file)
    for path, name in sources:
        yield from writer.write(os.path.realpath(path), name)
    if writer.holes:
        text = "".join(writer.holes).encode("utf-8", "surrogateescape")
        info = tarfile.TarInfo(HOLES)
        info.size = len(text)
        yield _header(info) + text + bytes(-len(text) % BLOCK)
    yield bytes(2 * BLOCK)


def measure(paths: Sequence[str]) -> int:
    """Return about how many bytes files and folders have; what cannot be read has none."""
    total = 0
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        total += _data_size(status) if stat.S_ISREG(status.st_mode) else 0
        for folder, folders, files in os.walk(path):
            if folder.count("/") - path.count("/") >= MAX_DEPTH:
                folders.clear()
            for file in files:
                try:
                    total += _data_size(os.lstat(os.path.join(folder, file)))
                except OSError:
                    continue
    return total


class _Writer:
    """The members of one archive.

    Attributes:
        holes: What fills files that have holes.
    """

    def __init__(self, on_problem: Callable[[str], None], on_file: Callable[[int], None]) -> None:
        self.holes: list[str] = []
        self._on_problem = on_problem
        self._on_file = on_file
        self._known: dict[tuple[int, int], str] = {}
        self._parts = 0

    def write(self, path: str, name: str) -> Iterator[bytes]:
        """Yield a file, or a folder with all that is in it."""
        if name.count("/") > MAX_DEPTH:
            self._on_problem(f"{path}: lies too deep; left out")
            return
        info = tarfile.TarInfo(name)
        try:
            status = os.lstat(path)
            info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
            if stat.S_ISDIR(status.st_mode):
                entries = sorted(os.listdir(path))
                info.type = tarfile.DIRTYPE
                yield _header(info)
                for entry in entries:
                    yield from self.write(os.path.join(path, entry), f"{name}/{entry}")
                # Once more: what was put in has changed its time.
                yield _header(info)
            elif stat.S_ISLNK(status.st_mode):
                info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)
                yield _header(info)
            elif not stat.S_ISREG(status.st_mode):
                self._on_problem(f"{path}: neither a file, a folder nor a link; left out")
            elif status.st_nlink > 1 and (first := self._first_name(status, name)) != name:
                info.type, info.linkname = tarfile.LNKTYPE, first
                yield _header(info)
            else:
                yield from self._write_file(path, info)
        except OSError as error:
            self._on_problem(f"{path}: {error.strerror}")

    def _first_name(self, status: os.stat_result, name: str) -> str:
        return self._known.setdefault((status.st_dev, status.st_ino), name)

    def _write_file(self, path: str, info: tarfile.TarInfo) -> Iterator[bytes]:
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            self._on_file(size)
            extents = _extents(file.fileno(), size)
            if extents == [(0, size)] or not size:
                info.size = size
                yield _header(info)
                yield from self._contents(path, file, size)
                return
            yield _header(info)
            words = ["fill", shlex.quote(info.name), str(size), str(info.mtime)]
            for start, end in extents:
                part = tarfile.TarInfo(f"{PARTS}/{self._parts}")
                part.size = end - start
                words += [str(self._parts), str(start // PART_UNIT)]
                self._parts += 1
                yield _header(part)
                file.seek(start)
                yield from self._contents(path, file, part.size)
            self.holes.append(" ".join(words) + "\n")

    def _contents(self, path: str, file: FileIO, size: int) -> Iterator[bytes]:
        left = size
        try:
            while left and (piece := file.read(min(left, _READ_SIZE))):
                left -= len(piece)
                yield piece
        except OSError as error:
            self._on_problem(f"{path}: {error.strerror}")
        else:
            if left:
                self._on_problem(f"{path}: became shorter meanwhile")
        # What was announced has to come.
        left += -size % BLOCK
        while left:
            yield bytes(min(left, _READ_SIZE))
            left -= min(left, _READ_SIZE)


def _extents(fd: int, size: int) -> list[tuple[int, int]]:
    """Return where a file has data, each from a whole unit on; holes that are not worth it count as data."""
    least = max(_HOLE_SIZE, size // _MAX_HOLES)
    extents: list[tuple[int, int]] = []
    at = 0
    while at < size:
        try:
            start = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.EINVAL:
                # A file system that does not tell.
                return [(0, size)]
            if error.errno != errno.ENXIO:
                raise
            break
        at = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        start -= start % PART_UNIT
        last = extents[-1][1] if extents else 0
        if start - last < least:
            extents[-1:] = [(extents[-1][0] if extents else 0, at)]
        else:
            extents.append((start, at))
    if extents and size - extents[-1][1] < least:
        extents[-1] = (extents[-1][0], size)
    os.lseek(fd, 0, os.SEEK_SET)
    return extents


def _data_size(status: os.stat_result) -> int:
    return min(status.st_size, status.st_blocks * 512)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
