"""Snapshots: copies of the COW files that a lab keeps for its guests, made while these do not run.

A kernel's COW files do not chain, so a snapshot is a whole copy: see docs/adr/0030-a-snapshot-is-a-copy.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from umlab._name import check_name
from umlab.daemon.disk import DISKS, SNAPSHOTS, KeptDisk, disk_path, kept_disks
from umlab.daemon.place import state_base
from umlab.errors import LabError
from umlab.guest.disk.cow import Backing, CowFile, reading
from umlab.guest.disk.file_lock import lock_file
from umlab.guest.disk.sparse import copy_file
from umlab.guest.disk.staging import stage
from umlab.guest.disk.undisturbed import undisturbed

#: Is told of each disk before it is copied.
Report = Callable[[KeptDisk], None]
#: Is told of all disks as soon as they are put back: a signal waits until it has ended.
Done = Callable[[list[KeptDisk]], None]


@dataclass(frozen=True, slots=True)
class Target:
    """Whose disks are meant.

    Attributes:
        lab: The lab.
        guest: One guest of it, ``None`` for all that have a disk.
    """

    lab: str
    guest: str | None = None

    def __str__(self) -> str:
        return f"{self.lab}/{self.guest}" if self.guest else self.lab


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of one guest's disk.

    Attributes:
        lab: The lab.
        guest: The guest.
        name: What it is called; those of one lab and name were made together.
        made_at: When, seconds since 1970.
        disk_size: Bytes that it takes on the disk, if it shares none with the guest's own COW file.
        backing: The image that it is good with.
        problem: Why it cannot be put back, ``None`` where it can.
    """

    lab: str
    guest: str
    name: str
    made_at: float
    disk_size: int
    backing: str
    problem: str | None


def find_target(word: str) -> Target:
    """Return what a word stands for: ``LAB``, ``LAB/GUEST``, or a guest's name that only one lab has.

    Raises:
        LabError: No lab keeps a disk of that name, or several do.
    """
    lab, sign, guest = word.partition("/")
    if sign:
        return Target(check_name("lab", lab), check_name("guest", guest))
    check_name("lab or guest", word)
    disks = kept_disks()
    if any(disk.lab == word for disk in disks):
        return Target(word)
    labs = sorted({disk.lab for disk in disks if disk.guest == word})
    if len(labs) == 1:
        return Target(labs[0], word)
    if labs:
        raise LabError(
            f"several labs have a guest {word}; write {' or '.join(f'{lab}/{word}' for lab in labs)}"
        )
    known = sorted({f"{disk.lab}/{disk.guest}" for disk in disks})
    kept = f"there are disks of {', '.join(known)}" if known else "a guest has one with root: {image: NAME}"
    raise LabError(f"no lab and no guest {word} has a disk that is kept; {kept}")


def save(target: Target, name: str, report: Report) -> list[KeptDisk]:
    """Copy disks into a snapshot: all of them or none; blocks while it does.

    Args:
        target: Whose.
        name: The snapshot's name; of other guests there may be parts of it already.
        report: Is told of each disk.

    Returns:
        The copies.

    Raises:
        LabError: A guest runs, its disk was cut short or its image changed, there is such a snapshot of it,
            or the disk is full.
    """
    check_name("snapshot", name)
    disks = [disk for disk in _disks(target) if disk.snapshot is None]
    if not disks:
        raise LabError(f"{target} has no disk that is kept; a guest has one with root: {{image: NAME}}")
    snapshots = state_base() / target.lab / SNAPSHOTS
    _refuse_existing(target, name, disks)
    with _making(f"the snapshot {name} of {target}"), contextlib.ExitStack() as locks:
        sources = {disk: locks.enter_context(_locked(disk)) for disk in disks}
        for disk in disks:
            _check(disk)
        snapshots.mkdir(mode=0o700, exist_ok=True)
        with stage(snapshots) as place:
            made = place / name
            made.mkdir()
            for disk, source in sources.items():
                report(disk)
                _copy(source, made / disk.path.name, 0o444)
            try:
                _add(made, snapshots / name)
            except FileExistsError:
                _refuse_existing(target, name, disks)
                raise
    return [disk for disk in _disks(target) if disk.snapshot == name]


def restore(target: Target, name: str, report: Report, done: Done = lambda _: None) -> list[KeptDisk]:
    """Put the disks of a snapshot back; blocks while it does.  What is there now is lost.

    Args:
        target: Whose.
        name: The snapshot's name.
        report: Is told of each disk.
        done: Is told when they are put back.

    Returns:
        The disks that were put back.

    Raises:
        LabError: There is no such snapshot, it was cut short, an image was changed since, a guest runs, or
            the disk is full; then everything is as it was.
    """
    copies = _copies(target, name)
    disks = state_base() / target.lab / DISKS
    with _making(f"the disk of {target}, as it was at {name},"), contextlib.ExitStack() as stack:
        for copy in copies:
            _check(copy)
        own = [KeptDisk(copy.lab, copy.guest, None, disk_path(disks.parent, copy.guest)) for copy in copies]
        for disk in own:
            with contextlib.suppress(FileNotFoundError):
                stack.enter_context(_locked(disk))
        disks.mkdir(mode=0o700, exist_ok=True)
        place = stack.enter_context(stage(disks))
        for copy in copies:
            report(copy)
            with open(copy.path, "rb") as source:
                _copy(source.fileno(), place / copy.path.name, 0o644)
        with undisturbed():
            for disk in own:
                os.replace(place / disk.path.name, disk.path)
            done(own)
    return own


def list_snapshots(target: Target | None = None) -> list[Snapshot]:
    """Return the snapshots of all labs, or of a target, the latest ones last."""
    found = []
    for disk in _disks(target) if target else kept_disks():
        # It may be removed at any moment.
        with contextlib.suppress(OSError):
            if disk.snapshot is not None:
                found.append(_describe(disk, disk.snapshot))
    return sorted(found, key=lambda each: (each.lab, each.made_at, each.guest))


def remove(target: Target, name: str) -> list[KeptDisk]:
    """Remove a snapshot, or one guest's part of it.

    Raises:
        LabError: There is no such snapshot, or it cannot be removed.
    """
    copies = _copies(target, name)
    try:
        for copy in copies:
            copy.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            # Other guests' parts may be in it, and other snapshots beside it.
            copies[0].path.parent.rmdir()
            copies[0].path.parent.parent.rmdir()
    except OSError as error:
        raise LabError(f"the snapshot {name} of {target} cannot be removed: {error.strerror}") from None
    return copies


def _disks(target: Target) -> list[KeptDisk]:
    return [disk for disk in kept_disks(target.lab) if target.guest in (None, disk.guest)]


def _copies(target: Target, name: str) -> list[KeptDisk]:
    check_name("snapshot", name)
    disks = _disks(target)
    copies = [disk for disk in disks if disk.snapshot == name]
    if not copies:
        names = sorted({disk.snapshot for disk in disks if disk.snapshot is not None})
        there = f"there are {', '.join(names)}" if names else "there is none yet"
        raise LabError(f"{target} has no snapshot {name}; {there}")
    return copies


def _refuse_existing(target: Target, name: str, disks: list[KeptDisk]) -> None:
    parts = {disk.guest for disk in _disks(target) if disk.snapshot == name}
    taken = [disk for disk in disks if disk.guest in parts]
    if taken:
        # With the whole lab's would go what is not in the way.
        whose = target if len(taken) == len(parts) else taken[0]
        raise LabError(
            f"{whose} has a snapshot {name} already; remove it first: umlab snapshot rm {whose} {name}"
        )


def _add(made: Path, folder: Path) -> None:
    """Make a folder of copies a snapshot, or its files parts of the one that is there.  Raises OSError."""
    try:
        made.rename(folder)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    with undisturbed(), contextlib.ExitStack() as undo:
        for name in os.listdir(made):
            os.link(made / name, folder / name)
            undo.callback(os.unlink, folder / name)
        undo.pop_all()


@contextlib.contextmanager
def _locked(disk: KeptDisk) -> Iterator[int]:
    """Yield a descriptor of a guest's COW file, which no kernel can use meanwhile.

    Raises:
        LabError: One does already.
        OSError: It cannot be opened.
    """
    fd = os.open(disk.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            lock_file(fd, str(disk.path), exclusive=True)
        except LabError as error:
            raise LabError(f"{error}: umlab console {disk} -- halt") from None
        yield fd
    finally:
        os.close(fd)


def _check(disk: KeptDisk) -> None:
    problem = _problem(disk)
    if problem is not None:
        raise LabError(f"{disk}: {problem}")


def _problem(disk: KeptDisk) -> str | None:
    """Say why no kernel would take a COW file, or what is missing of it."""
    path = str(disk.path)
    try:
        with CowFile(path) as cow, Backing(cow.backing) as image, reading(path):
            problem = image.mismatch(cow.header, path) or cow.cut()
            return None if problem is None else str(problem)
    except (LabError, ValueError) as error:
        return str(error)


def _describe(disk: KeptDisk, name: str) -> Snapshot:
    status = disk.path.stat()
    backing = ""
    with contextlib.suppress(LabError), CowFile(str(disk.path)) as cow:
        backing = cow.backing
    return Snapshot(
        lab=disk.lab,
        guest=disk.guest,
        name=name,
        made_at=status.st_mtime,
        disk_size=status.st_blocks * 512,
        backing=backing,
        problem=_problem(disk),
    )


def _copy(source: int, path: Path, mode: int) -> None:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        copy_file(source, fd, lambda _: None)
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _making(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LabError(f"{what} cannot be made: {error.strerror or error}") from None
