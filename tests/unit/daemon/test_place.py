"""Names and the runtime directory."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from umlab.daemon.place import runtime_directory
from umlab.errors import LabError


def test_runtime_directory_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))

    directory = runtime_directory("lan")

    assert directory == tmp_path / "umlab" / "lan"
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert runtime_directory("lan") == directory


def test_runtime_directory_without_xdg_is_below_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))

    assert runtime_directory("lan") == tmp_path / f"umlab-{os.getuid()}" / "lan"


def test_runtime_directory_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / "umlab").symlink_to(elsewhere)

    with pytest.raises(LabError, match="not a directory of its own"):
        runtime_directory("lan")


def test_runtime_directory_open_to_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "umlab").mkdir()
    (tmp_path / "umlab").chmod(0o755)

    with pytest.raises(LabError, match="chmod 700"):
        runtime_directory("lan")


def test_runtime_directory_that_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))

    with pytest.raises(LabError, match="missing"):
        runtime_directory("lan")
