"""Where a user's disk images and kernels are kept, for all labs, and what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from umlab.errors import LabError

#: What the directory has: images of ``umlab image``, kernels of ``umlab kernel``.
IMAGES, KERNELS = "images", "kernels"
#: What the cache has: sources and objects of kernels, and the module directories of kernel trees.
BUILD, MODULES = "build", "modules"


def user_base(variable: str, below_home: str, what: str) -> Path:
    """Return the directory that a user's files of a kind are below, whether it is there or not.

    Args:
        variable: The environment variable that names what is above it.
        below_home: What is above it where that is unset, below the home directory.
        what: What is kept there, for the error.

    Raises:
        LabError: There is no home directory.

    Source: XDG Base Directory Specification.
    """
    base = os.environ.get(variable)
    try:
        return (Path(base) if base else Path.home() / below_home) / "umlab"
    except RuntimeError:
        raise LabError(f"there is no home directory for {what}; set {variable}") from None


def data_base() -> Path:
    """Return the directory for what is kept for all labs, whether it is there or not.

    ``$XDG_DATA_HOME/umlab``, or ``~/.local/share/umlab`` where that variable is unset.

    Raises:
        LabError: There is no home directory.
    """
    return user_base("XDG_DATA_HOME", ".local/share", "images and kernels")


def data_directory(kind: str) -> Path:
    """Make, when needed, and return a directory of it, mode 0700.

    Args:
        kind: :data:`IMAGES` or :data:`KERNELS`.

    Raises:
        LabError: It cannot be made.
    """
    return _made(data_base() / kind, "XDG_DATA_HOME")


def cache_directory(kind: str) -> Path:
    """Make, when needed, and return a directory for what may be removed at any time, mode 0700.

    Below ``$XDG_CACHE_HOME/umlab``, or ``~/.cache/umlab`` where that variable is unset.

    Args:
        kind: :data:`BUILD` or :data:`MODULES`.

    Raises:
        LabError: There is no home directory, or it cannot be made.
    """
    return _made(user_base("XDG_CACHE_HOME", ".cache", "what is built") / kind, "XDG_CACHE_HOME")


def _made(directory: Path, variable: str) -> Path:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"cannot make the directory {directory}: {error.strerror}; set {variable}") from None
    return directory
