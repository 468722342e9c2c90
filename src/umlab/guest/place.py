"""Where a user's disk images and kernels are kept, for all labs, and what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

from umlab.errors import LabError

#: What the directory has: images of ``umlab image``, kernels of ``umlab kernel``.
IMAGES, KERNELS = "images", "kernels"
#: What the cache has: sources and objects of kernels, and the module directories of kernel trees.
BUILD, MODULES = "build", "modules"


def data_base() -> Path:
    """Return the directory for what is kept for all labs, whether it is there or not.

    ``$XDG_DATA_HOME/umlab``, or ``~/.local/share/umlab`` where that variable is unset.

    Raises:
        LabError: There is no home directory.
    """
    base = os.environ.get("XDG_DATA_HOME")
    try:
        return (Path(base) if base else Path.home() / ".local/share") / "umlab"
    except RuntimeError:
        raise LabError("there is no home directory for images and kernels; set XDG_DATA_HOME") from None


def data_directory(kind: str) -> Path:
    """Make, when needed, and return a directory of it, mode 0700.

    Args:
        kind: :data:`IMAGES` or :data:`KERNELS`.

    Raises:
        LabError: It cannot be made.
    """
    directory = data_base() / kind
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(
            f"cannot make the directory {directory}: {error.strerror}; set XDG_DATA_HOME"
        ) from None
    return directory


def cache_directory(kind: str) -> Path:
    """Make, when needed, and return a directory for what may be removed at any time, mode 0700.

    Below ``$XDG_CACHE_HOME/umlab``, or ``~/.cache/umlab`` where that variable is unset.

    Args:
        kind: :data:`BUILD` or :data:`MODULES`.

    Raises:
        LabError: There is no home directory, or it cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        directory = (Path(base) if base else Path.home() / ".cache") / "umlab" / kind
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except RuntimeError:
        raise LabError("there is no home directory for what is built; set XDG_CACHE_HOME") from None
    except OSError as error:
        raise LabError(
            f"cannot make the directory {directory}: {error.strerror}; set XDG_CACHE_HOME"
        ) from None
    return directory
