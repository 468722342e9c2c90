"""Images of what comes from elsewhere: raw images, and archives of a root file system, compressed or not."""

from __future__ import annotations

import io
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

from umlab.errors import LabError
from umlab.guest.disk.cow import Progress, layout_problems
from umlab.guest.disk.image import new_image
from umlab.guest.disk.sparse import chunks, copy_file, write_sparse
from umlab.guest.program import check_programs, check_status, run_program, running
from umlab.wire.cow import CowHeader
from umlab.wire.magic import EMULATOR_IMAGES, HEAD_SIZE, file_kind

#: Bytes of the file system that an archive is put in, unless another size is given.
DEFAULT_SIZE = 2 << 30
#: The least that a file system with a journal is made of.
MIN_SIZE = 8 << 20
#: Programs that are needed for an archive, and Debian's packages with them.
ARCHIVE_PROGRAMS = {"fakeroot": "fakeroot", "mke2fs": "e2fsprogs", "tar": "tar"}
_UNPACKERS = {"gzip": "gzip", "xz": "xz-utils", "zstd": "zstd", "bzip2": "bzip2"}
#: Makes an image, $3, of an archive, $1, that is unpacked at $2.  Owners and devices are only pretended, by
#: fakeroot: who is not root must be let read the files in fact, which changes nothing of what is pretended.
#: Where a guest mounts file systems when it boots there have to be directories.
_MAKE_EXT4 = """
set -e
tar --extract --file="$1" --directory="$2" --preserve-permissions --numeric-owner
env -u LD_PRELOAD chmod -R u+rwX "$2"
for name in dev proc run sys tmp; do [ -e "$2/$name" ] || [ -L "$2/$name" ] || mkdir "$2/$name"; done
# A new file is zeros already.  Behind a page that is changed in part kernels read wrong: no smaller blocks.
exec mke2fs -q -F -t ext4 -b 4096 -E lazy_journal_init=1 -d "$2" "$3" "$4"
"""


def import_image(path: str, name: str, progress: Progress, *, size: int = DEFAULT_SIZE) -> None:
    """Make an image of a file, which is not changed; blocks while it does.

    Args:
        path: A raw image, a tar archive of a root file system, or one of these compressed with gzip, xz,
            zstd or bzip2.
        name: The new image's name.
        progress: Is told how far a raw image has been gone through: bytes, and those of the whole file.
        size: Bytes of the file system that an archive is put in.

    Raises:
        LabError: There is an image of that name, the file is none to make one of, or a program is missing;
            says what would help.
    """
    with new_image(name) as place:
        image = place / "image"
        try:
            mode = os.stat(path).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
                raise LabError(f"{path} is neither a plain file nor a block device")
            with open(path, "rb", buffering=0) as file:
                kind = file_kind(_head(file.read))
                file.seek(0)
                if kind in _UNPACKERS:
                    kind = _unpack(file, kind, image, progress)
                elif kind != "tar":
                    _check_raw(path, kind)
                    total = file.seek(0, os.SEEK_END)
                    _fill(image, lambda fd: copy_file(file.fileno(), fd, lambda done: progress(done, total)))
        except OSError as error:
            if error.filename == path:
                raise LabError(f"cannot read {path}: {error.strerror}") from None
            raise
        if kind == "tar":
            make_ext4(path, place, size)
        else:
            _check_raw(path, kind)
            _check_size(path, image.stat().st_size)


def make_ext4(archive: str, place: Path, size: int) -> None:
    """Make ``image`` in a directory, a file system with what an archive has.

    Args:
        archive: A tar archive, compressed or not.
        place: The directory, which is the caller's.
        size: Bytes of the file system.

    Raises:
        LabError: A program is missing or fails: what is in the archive does not fit.
    """
    check_programs(ARCHIVE_PROGRAMS)
    tree, image = place / "tree", place / "image"
    tree.mkdir()
    image.unlink(missing_ok=True)
    command = [
        "fakeroot",
        "--",
        "sh",
        "-c",
        _MAKE_EXT4,
        "sh",
        archive,
        str(tree),
        str(image),
        f"{size >> 10}K",
    ]
    lines: list[str] = []
    try:
        run_program(command, lines.append)
    except LabError:
        text = " ".join(lines)
        if "Could not allocate" in text or "No free space" in text or "no free space" in text:
            raise LabError(
                f"what is in {archive} does not fit into {size >> 20} MiB; give it more with --size"
            ) from None
        raise LabError(f"{archive} cannot be made an image: {text[-300:]}") from None


def _unpack(file: io.FileIO, kind: str, image: Path, progress: Progress) -> str:
    """Unpack a raw image, and return what it is; of an archive only look what it is."""
    program = {kind: _UNPACKERS[kind]}
    check_programs(program)
    with running([kind, "-dc"], stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        output = process.stdout
        head = _head(output.read)
        inner = file_kind(head)
        if inner == "tar":
            return inner
        stream = io.BytesIO(head)
        parts = chunks(lambda size: stream.read(size) or output.read(size))
        total = os.fstat(file.fileno()).st_size
        # The program reads by our descriptor, whose position tells how far it is.
        _fill(image, lambda fd: write_sparse(fd, parts, lambda _: progress(file.tell(), total)))
        check_status(kind, process.wait(), process.stderr.read().decode("utf-8", "replace").strip())
    return inner


def _head(read: Callable[[int], bytes]) -> bytes:
    head = b""
    while len(head) < HEAD_SIZE and (data := read(HEAD_SIZE - len(head))):
        head += data
    return head


def _fill(image: Path, write: Callable[[int], object]) -> None:
    with open(image, "xb") as target:
        write(target.fileno())


def _check_size(path: str, size: int) -> None:
    """Refuse what no COW file of use can be made of."""
    for problem in layout_problems(CowHeader(3, os.fsencode(path), 0, size)):
        raise LabError(f"{path} makes no image: {problem.problem}")


def _check_raw(path: str, kind: str) -> None:
    """Refuse what a guest's kernel cannot use as a disk."""
    if kind in EMULATOR_IMAGES:
        raise LabError(
            f"{path} is a {kind} image, which only an emulator reads; make it a raw one first: "
            f"qemu-img convert -O raw {path} {path}.raw"
        )
    if kind == "cow":
        raise LabError(f"{path} is a COW file; merge it with its image first: umlab cow merge")
