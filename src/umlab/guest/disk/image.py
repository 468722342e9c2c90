"""The store of disk images: root file systems that any number of guests share below COW files.

An image is one file, ``NAME.img`` in the user's directory of images, which nobody writes to: a COW file is
good for the image as it was.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from umlab._name import check_name
from umlab.errors import LabError
from umlab.guest.disk.file_lock import user_of
from umlab.guest.disk.staging import stage
from umlab.guest.place import IMAGES, data_base, data_directory
from umlab.wire.magic import HEAD_SIZE, block_size, file_kind

_SUFFIX = ".img"


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        name: Its name.
        path: Its file.
        size: Its bytes, as a guest sees them.
        disk_size: Bytes that it takes on the disk.
        file_system: What it has, such as ``ext4``; empty where that is not known.
        block_size: Bytes of that file system's blocks, ``None`` where that is not known.
        made_at: When it was made, seconds since 1970.
    """

    name: str
    path: str
    size: int
    disk_size: int
    file_system: str
    block_size: int | None
    made_at: float


def image_path(name: str) -> Path:
    """Return where the image of a name is, or would be.  Raises LabError."""
    return data_base() / IMAGES / (check_name("image", name) + _SUFFIX)


def find_image(name_or_path: str) -> Path:
    """Return the file of an image.

    Args:
        name_or_path: What has a slash is a path; everything else is a name of the store, whatever lies in
            the current folder.

    Raises:
        LabError: There is none; says which there are, and how to get one.
    """
    if "/" in name_or_path:
        path = Path(os.path.abspath(name_or_path))
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError) as error:
            raise LabError(f"there is no image file {path}: {getattr(error, 'strerror', error)}") from None
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise LabError(f"{path} is neither a plain file nor a block device")
        return path
    path = image_path(name_or_path)
    if not os.path.isfile(path):
        names = [image.name for image in list_images()]
        there = f"there are {', '.join(names)}" if names else "there is none yet"
        hint = f"; or do you mean ./{name_or_path}?" if os.path.isfile(name_or_path) else ""
        raise LabError(
            f"there is no image {name_or_path}; {there}; "
            f"make one with: umlab image build {name_or_path}{hint}"
        )
    return path


def list_images() -> list[Image]:
    """Return the images of the store, by name."""
    found = []
    for path in sorted((data_base() / IMAGES).glob(f"[!.]*{_SUFFIX}")):
        # It may be removed at any moment.
        with contextlib.suppress(OSError):
            found.append(_describe(path))
    return found


def _describe(path: Path) -> Image:
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        head = file.read(HEAD_SIZE)
    return Image(
        name=path.name.removesuffix(_SUFFIX),
        path=str(path),
        size=status.st_size,
        disk_size=status.st_blocks * 512,
        file_system=file_kind(head),
        block_size=block_size(head),
        made_at=status.st_mtime,
    )


@contextlib.contextmanager
def new_image(name: str) -> Iterator[Path]:
    """Yield an empty directory, in which the body makes ``image``; then that is the image of a name.

    The image is there whole or not at all, and read-only.

    Raises:
        LabError: There is an image of that name, or it cannot be made: the disk is full.
    """
    path = image_path(name)
    directory = data_directory(IMAGES)
    _refuse_existing(path, name)
    try:
        with stage(directory) as place:
            yield place
            made = place / "image"
            os.chmod(made, 0o444)
            with open(made, "rb") as file:
                os.fsync(file.fileno())
            try:
                os.link(made, path)
            except FileExistsError:
                _refuse_existing(path, name)
    except OSError as error:
        raise LabError(f"image {name} cannot be made in {directory}: {error.strerror or error}") from None


def _refuse_existing(path: Path, name: str) -> None:
    if os.path.lexists(path):
        raise LabError(f"there is an image {name} already; remove it first: umlab image rm {name}")


def remove_image(name: str, users: Sequence[str], *, force: bool = False) -> None:
    """Remove an image.

    Args:
        name: The image.
        users: Who needs it, as people know them.
        force: Remove it though somebody needs it: what is kept in their COW files is lost then.

    Raises:
        LabError: There is no such image, somebody needs it, or it cannot be removed.
    """
    path = image_path(name)
    if not os.path.isfile(path):
        find_image(name)
    if users and not force:
        raise LabError(
            f"image {name} is needed by {', '.join(users)}, whose disks are lost without it; "
            f"remove these first, or it with: umlab image rm {name} --force"
        )
    with open(path, "rb") as file:
        user = user_of(file.fileno())
    if user is not None and not force:
        raise LabError(f"image {name} is in use by {user}; stop that first")
    try:
        path.unlink()
    except OSError as error:
        raise LabError(f"image {name} cannot be removed: {error.strerror}") from None
