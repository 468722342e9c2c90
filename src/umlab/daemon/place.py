"""Where a lab keeps its sockets and pids."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from umlab._name import check_name
from umlab.errors import LabError
from umlab.guest.place import user_base

#: What a lab's runtime directory has beside the sockets of its segments.  Short, since a guest's console
#: is a socket two directories below ``GUESTS``.
API_SOCKET, KEEPER_SOCKET = "api.sock", "keeper.sock"
DAEMON_LOCK, KEEPER_LOCK = "daemon.lock", "keeper.lock"
GUESTS = "g"
#: Beside the labs: the run directories of ``umlab run``'s guests.  No lab can have this name.
RUNS = ".run"


def runtime_base() -> Path:
    """Return the directory that has all labs' runtime directories, whether it is there or not.

    ``$XDG_RUNTIME_DIR/umlab``, or ``umlab-UID`` in the folder for temporary files where that variable is
    unset.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base) / "umlab" if base else Path(tempfile.gettempdir()) / f"umlab-{os.getuid()}"


def state_base() -> Path:
    """Return the directory that has all labs' logs and disks, whether it is there or not.

    ``$XDG_STATE_HOME/umlab``, or ``~/.local/state/umlab`` where that variable is unset.

    Raises:
        LabError: There is no home directory.
    """
    return user_base("XDG_STATE_HOME", ".local/state", "logs")


def runtime_directory(lab: str) -> Path:
    """Make, when needed, and return the directory for a lab's sockets, mode 0700.

    Raises:
        LabError: The name is not usable, or a directory on the way is a link, belongs to somebody else
            or is open to others.
    """
    check_name("lab", lab)
    parent = runtime_base()
    directory = parent / lab
    for path in (parent, directory):
        _make_private(path)
    return directory


def runs_directory() -> Path:
    """Make, when needed, and return the directory for the guests of ``umlab run``, mode 0700.

    Whoever makes a run directory in it has a shared lock on it meanwhile, and whoever removes those of dead
    runs an exclusive one.

    Raises:
        LabError: A directory on the way is a link, belongs to somebody else or is open to others.
    """
    parent = runtime_base()
    for path in (parent, parent / RUNS):
        _make_private(path)
    return parent / RUNS


def state_directory(lab: str) -> Path:
    """Make, when needed, and return the directory for a lab's logs, mode 0700.

    Raises:
        LabError: The name is not usable, or the directory cannot be made or is not ours alone.
    """
    check_name("lab", lab)
    parent = state_base()
    try:
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"cannot make the directory {parent} for logs: {error.strerror}; set XDG_STATE_HOME"
        ) from None
    _make_private(parent / lab)
    return parent / lab


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise LabError(f"cannot make the directory {path}: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise LabError(f"{path} is not a directory of its own; remove it")
    if status.st_uid != os.getuid():
        raise LabError(f"{path} belongs to user {status.st_uid}; remove it or set XDG_RUNTIME_DIR")
    if status.st_mode & 0o077:
        raise LabError(f"{path} is open to other users; run: chmod 700 {path}")
