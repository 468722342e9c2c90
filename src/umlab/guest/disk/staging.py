"""What is made is there whole or not at all: a place beside where it goes, which does not last."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

#: What such places' names begin with; no name of ours does.
PREFIX = ".new-"
#: The same in the folder for temporary files, which everybody uses.
TEMPORARY_PREFIX = ".umlab-image-"


@contextlib.contextmanager
def stage(directory: Path, prefix: str = PREFIX) -> Iterator[Path]:
    """Yield a new directory in another one, mode 0700; what is left in it goes at the end.

    It is locked meanwhile, so that :func:`abandoned` knows one that nobody will finish.

    Args:
        directory: Where what is made is to go, by a rename or a link.
        prefix: What its name begins with.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        place = tempfile.mkdtemp(prefix=prefix, dir=directory)
        lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Until it was locked it looked abandoned.
            if os.path.exists(place):
                yield Path(place)
                return
        finally:
            remove(Path(place))
            os.close(lock)


def abandoned(directory: Path, prefix: str = PREFIX) -> Iterator[Path]:
    """Yield what killed processes have left half-made in a directory; it is locked until the next one."""
    for place in sorted(directory.glob(f"{prefix}*")):
        try:
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    yield place
        finally:
            os.close(lock)


def temporary_folder() -> Path:
    """Return where large temporary files go: ``$TMPDIR``, or ``/tmp``."""
    return Path(os.environ.get("TMPDIR") or "/tmp")


def remove(place: Path) -> None:
    """Remove a directory of ours with all that is in it, as far as that is possible."""
    shutil.rmtree(place, ignore_errors=True)
    if not place.exists():
        return
    # What an archive has put there may be closed to its owner.
    for parent, names, _ in os.walk(place):
        for path in (os.path.join(parent, name) for name in names):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, 0o700)
    shutil.rmtree(place, ignore_errors=True)
    if place.exists():
        # What mmdebstrap makes for a plain user belongs to his subordinate users.
        command = ["unshare", "--map-root-user", "--map-auto", "rm", "-rf", "--", str(place)]
        with contextlib.suppress(OSError):
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
