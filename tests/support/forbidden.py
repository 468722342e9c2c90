"""Folders that nobody may look into, root neither, and files that he may not write to."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let each look at what is in a folder, or for it, fail as where it may not be searched."""

    def refusing(call: Callable[..., Any], listing: bool) -> Callable[..., Any]:
        def look(path: Any, *words: Any, **options: Any) -> Any:
            inside = isinstance(path, (str, os.PathLike)) and folder in Path(path).parents
            if inside or (listing and isinstance(path, (str, os.PathLike)) and Path(path) == folder):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
            return call(path, *words, **options)

        return look

    for name, listing in (("stat", False), ("lstat", False), ("listdir", True), ("scandir", True)):
        monkeypatch.setattr(os, name, refusing(getattr(os, name), listing))


def refuse_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody open a file for writing whose owner may not write to it, as it is for plain users."""
    opened = os.open

    def open_as_told(path: Any, flags: int, *words: Any, **options: Any) -> int:
        fd = opened(path, flags, *words, **options)
        if flags & os.O_ACCMODE != os.O_RDONLY and not os.fstat(fd).st_mode & 0o200:
            os.close(fd)
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(path))
        return fd

    monkeypatch.setattr(os, "open", open_as_told)
