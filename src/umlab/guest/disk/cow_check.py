"""What can be said about a COW file without changing anything: its facts, its problems, its relatives."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from umlab.errors import LabError
from umlab.guest.disk.cow import Backing, CowFile, Problem, chain_problem, command, reading
from umlab.guest.disk.file_lock import user_of
from umlab.guest.place import data_base

#: Of a block that ``stat`` counts.
_BLOCK = 512


@dataclass(frozen=True, slots=True)
class CowFacts:
    """A COW file.

    Attributes:
        path: What it is called.
        version: 1 to 3.
        broken: Whether a version 3 is laid out as some old 64-bit programs did.
        backing: The backing file's path.
        size: Bytes of the disk, as many as the backing file has.
        mtime: When the backing file was changed last, seconds since 1970.
        sector_size: Bytes that are kept together.
        sectors: How many sectors there are.
        changed: How many of them lie in the COW file.
        length: Bytes of the COW file with its holes.
        on_disk: Bytes that it takes up on the disk.
        used_by: Who runs on it, as far as its lock tells, or ``None``.
    """

    path: str
    version: int
    broken: bool
    backing: str
    size: int
    mtime: int
    sector_size: int
    sectors: int
    changed: int
    length: int
    on_disk: int
    used_by: str | None


def cow_facts(path: str) -> CowFacts:
    """Return what a COW file is; its backing file is not looked at.

    Raises:
        LabError: It cannot be read, or is no COW file that a kernel could use.
    """
    with CowFile(path) as cow, reading(path):
        header = cow.header
        return CowFacts(
            path,
            header.version,
            header.broken,
            cow.backing,
            header.size,
            header.mtime,
            header.sector_size,
            header.sectors,
            sum(count for _, count in cow.changed()),
            cow.length,
            os.fstat(cow.fd).st_blocks * _BLOCK,
            user_of(cow.fd),
        )


def cow_user(path: str) -> str | None:
    """Say who runs on a COW file, as far as its lock tells; ``None`` also where it cannot be opened."""
    try:
        with CowFile(path) as cow:
            return user_of(cow.fd)
    except LabError:
        return None


def cow_problems(path: str) -> Iterator[Problem]:
    """Yield what is wrong with a COW file, with its backing file, and with both together."""
    try:
        with CowFile(path) as cow, reading(path):
            yield from cow.problems()
            try:
                image = Backing(cow.backing)
            except LabError as error:
                fix = f"put it back, or say where it is now: {command('rebase', path, 'BACKING')}"
                yield Problem(str(error), fix)
                return
            with image:
                yield from _backing_problems(cow, image)
    except LabError as error:
        yield Problem(str(error), "name another file, or put back what is missing")


def _backing_problems(cow: CowFile, image: Backing) -> Iterator[Problem]:
    if problem := image.mismatch(cow.header, cow.path):
        yield problem
    if image.is_cow():
        yield chain_problem(image.path)
    if user := user_of(image.fd, writing=True):
        yield Problem(
            f"{user} writes to the backing file {image.path}", "stop that: what it writes is of no use here"
        )


def dependents(path: str, folders: Iterable[str], deep: Iterable[str] = ()) -> list[str]:
    """Return the COW files of a backing file that kernels would take as they are, sorted.

    Args:
        path: The backing file.
        folders: Where to look.
        deep: Where to look, in the folders below as well.

    Raises:
        LabError: There is no such backing file.
    """
    found: dict[tuple[int, int], str] = {}
    with Backing(path) as image:
        for candidate in _files(folders, deep):
            try:
                with CowFile(candidate) as cow:
                    fits = image.mismatch(cow.header, candidate) is None
                    if fits and os.path.samestat(os.stat(cow.backing), os.fstat(image.fd)):
                        status = os.fstat(cow.fd)
                        found.setdefault((status.st_dev, status.st_ino), candidate)
            except (LabError, OSError, ValueError):
                # No COW file, one of a backing file that is not there, or nothing of ours.
                continue
    return sorted(found.values())


def other_dependents(path: str, *deep: str, backing: str | None = None) -> tuple[str, list[str]]:
    """Return the path of a COW file's backing file, and the other COW files that kernels would take for that.

    They are looked for beside both files, and wherever images and snapshots are kept.

    Args:
        path: The COW file.
        deep: Where to look as well, in the folders below too.
        backing: The backing file, where it is another one than the COW file says.

    Raises:
        LabError: One of both files cannot be read.
    """
    with CowFile(path) as cow:
        real, own = os.path.realpath(backing or cow.backing), os.path.realpath(path)
    folders = dict.fromkeys(map(os.path.dirname, (own, real)))
    found = dependents(real, folders, (os.fspath(data_base()), *deep))
    return real, [each for each in found if os.path.realpath(each) != own]


def _files(folders: Iterable[str], deep: Iterable[str]) -> Iterator[str]:
    for folder in folders:
        yield from _plain_files(folder)
    for top in deep:
        for folder, _, _ in os.walk(top):
            yield from _plain_files(folder)


def _plain_files(folder: str) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry.path for entry in entries if entry.is_file())
    except OSError:
        return
