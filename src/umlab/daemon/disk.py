"""The disks that a lab keeps for its guests: COW files over shared images, and their snapshots."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umlab.daemon.place import state_base
from umlab.errors import LabError
from umlab.guest.cmdline import DiskRoot, GuestSpec
from umlab.guest.device import Disk
from umlab.guest.disk.cow import CowFile, create_cow
from umlab.guest.disk.file_lock import user_of
from umlab.guest.disk.image import find_image
from umlab.guest.place import IMAGES, data_base
from umlab.guest.plug import check_plug

#: In a lab's state directory: a COW file for each guest, and a folder for each snapshot with copies of them.
DISKS, SNAPSHOTS = "disks", "snapshots"
_SUFFIX = ".cow"


@dataclass(frozen=True, slots=True)
class KeptDisk:
    """A COW file in a lab's state directory.

    Attributes:
        lab: The lab.
        guest: The guest whose disk it is.
        snapshot: The snapshot that it belongs to, ``None`` where the guest itself writes to it.
        path: The file.
    """

    lab: str
    guest: str
    snapshot: str | None
    path: Path

    def __str__(self) -> str:
        return f"{self.lab}/{self.guest}" + (f"@{self.snapshot}" if self.snapshot else "")


def disk_path(state: Path, guest: str) -> Path:
    """Return where a guest's COW file is kept, in its lab's state directory."""
    return state / DISKS / f"{guest}{_SUFFIX}"


def kept_disks(lab: str | None = None) -> list[KeptDisk]:
    """Return the COW files of guests and of snapshots, of one lab or of all, sorted."""
    base = state_base()
    found = []
    for state in sorted(base.glob("*")) if lab is None else [base / lab]:
        for path in sorted(state.glob(f"{DISKS}/[!.]*{_SUFFIX}")):
            found.append(KeptDisk(state.name, path.name.removesuffix(_SUFFIX), None, path))
        for path in sorted(state.glob(f"{SNAPSHOTS}/[!.]*/[!.]*{_SUFFIX}")):
            found.append(KeptDisk(state.name, path.name.removesuffix(_SUFFIX), path.parent.name, path))
    return found


def disks_on(image: str | os.PathLike[str]) -> Iterator[KeptDisk]:
    """Yield the COW files that labs keep over an image."""
    real = os.path.realpath(image)
    for disk in kept_disks():
        try:
            with CowFile(str(disk.path)) as cow:
                if os.path.realpath(cow.backing) == real:
                    yield disk
        except (LabError, ValueError):
            # No COW file of use needs nothing.
            continue


def refuse_unreadable() -> None:
    """Refuse to tell who needs an image where labs may keep what cannot be read.

    Raises:
        LabError: Names a directory, or a COW file, which nobody says anything of.
    """
    for state in _entries(state_base()):
        folders = [state / DISKS, *_entries(state / SNAPSHOTS)]
        for file in (file for folder in folders for file in _entries(folder)):
            if file.suffix == _SUFFIX and not os.access(file, os.R_OK):
                raise LabError(f"cannot read {file}, which may need the image")


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise LabError(f"cannot read {directory}, whose disks may need the image: {error.strerror}") from None


def prepare_disk(spec: GuestSpec, state: Path) -> None:
    """Have a guest's disk there before its kernel runs, which says little of what it cannot open.

    A COW file that is not there is made.

    Args:
        spec: The guest, whatever its root is.
        state: The state directory of its lab.

    Raises:
        LabError: The disk cannot be had: says what is missing or was changed, and what would help.
    """
    root = spec.root
    if not isinstance(root, DiskRoot):
        return
    try:
        if root.backing is not None:
            _prepare_cow(root.path, root.backing, state)
        check_plug(Disk(root.path, root.backing), None)
        with open(root.path, "rb") as file:
            user = user_of(file.fileno()) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else None
    except LabError as error:
        raise LabError(f"guest {spec.umid}: {error}") from None
    except OSError as error:
        raise LabError(f"guest {spec.umid}: {error.filename}: {error.strerror}") from None
    if user is not None:
        raise LabError(f"guest {spec.umid}: {root.path} is in use by {user}; stop that first")


def _prepare_cow(path: str, image: str, state: Path) -> None:
    if Path(image).parent == data_base() / IMAGES:
        # By its name, so that it is told how to get it.
        find_image(Path(image).stem)
    if not os.path.lexists(path):
        if Path(path).parent == state / DISKS:
            (state / DISKS).mkdir(mode=0o700, exist_ok=True)
        create_cow(path, image)
