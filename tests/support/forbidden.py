"""Folders that nobody may look into, root neither."""

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
