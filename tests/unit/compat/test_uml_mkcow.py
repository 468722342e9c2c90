"""``uml_mkcow``: its options, its messages, its status."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from support.cow_files import SECTOR, write_cow
from umlab.compat.uml_mkcow import main
from umlab.guest.disk.cow_check import cow_facts, cow_problems

SIZE = 1 << 20


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, with an image in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image").write_bytes(os.urandom(SIZE))
    return tmp_path


@pytest.mark.parametrize("words", [[], ["new"], ["-f"], ["-f", "new"], ["--help"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert main(["/usr/bin/uml_mkcow", *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("uml_mkcow usage: \n\tuml_mkcow [-f] <COW file> <backing file>\n")
    assert os.listdir(folder) == ["image"]


def test_file_is_made_and_replaced_with_f(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["uml_mkcow", "new", "image", "more"]) == 0
    assert main(["uml_mkcow", "new", "image"]) == 1
    assert capsys.readouterr() == ("", "open COW file: File exists\n")
    write_cow(Path("new"), "v3", Path.cwd() / "image", {0: b"x" * SECTOR})
    assert main(["uml_mkcow", "-f", "new", "image"]) == 0
    assert cow_facts("new").changed == 0
    assert list(cow_problems("new")) == []


@pytest.mark.parametrize(
    ("cow", "backing", "words"),
    [
        ("no/new", "image", "open COW file: No such file or directory\n"),
        (".", "image", "open COW file: File exists\n"),
        ("new", "none", "write_cow_header: cannot open {folder}/none: No such file or directory\n"),
        ("new", ".", "write_cow_header: {folder}/. is neither a plain file nor a block device\n"),
    ],
)
def test_what_cannot_be_made_leaves_nothing(
    cow: str, backing: str, words: str, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert main(["uml_mkcow", cow, backing]) == 1
    assert capsys.readouterr() == ("", words.format(folder=folder.resolve()))
    assert os.listdir(folder) == ["image"]


def test_backing_file_that_may_not_be_read_is_named(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def refuse(path: str, *words: int, **options: int) -> int:
        if path.endswith("image"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return opened(path, *words, **options)

    # Root may read any file.
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    assert main(["uml_mkcow", "new", "image"]) == 1
    words = f"write_cow_header: cannot open {folder.resolve()}/image: Permission denied\n"
    assert capsys.readouterr() == ("", words)


def test_directory_is_not_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["uml_mkcow", "-f", ".", "image"]) == 1
    assert capsys.readouterr().err == "open COW file: Is a directory\n"


def test_backing_file_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["uml_mkcow", "-f", "image", "image"]) == 1
    assert "is the backing file itself" in capsys.readouterr().err
    assert Path("image").stat().st_size == SIZE
