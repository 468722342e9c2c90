"""A new file is there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from umlab.guest.disk.new_file import new_file


@pytest.fixture(params=["unnamed", "hidden"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, once as on a file system that has no files without a name."""
    if request.param == "hidden":
        opened = os.open

        def refuse(path: str, flags: int, mode: int = 0o777) -> int:
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "as on NFS")
            return opened(path, flags, mode)

        monkeypatch.setattr(os, "open", refuse)
    return tmp_path


def test_file_is_there_after_the_block_and_not_before(folder: Path) -> None:
    with new_file(str(folder / "new"), mode=0o640) as fd:
        os.write(fd, b"whole")
        assert not (folder / "new").exists()
    assert (folder / "new").read_bytes() == b"whole"
    assert stat.S_IMODE((folder / "new").stat().st_mode) == 0o640
    assert os.listdir(folder) == ["new"]


def write_half(fd: int, ending: BaseException) -> None:
    """Write something, and be ended."""
    os.write(fd, b"half")
    raise ending


@pytest.mark.parametrize("ending", [KeyboardInterrupt, OSError(errno.ENOSPC, "full")])
@pytest.mark.parametrize("replace", [False, True])
def test_what_ends_the_block_leaves_what_was_there(
    folder: Path, ending: BaseException, replace: bool
) -> None:
    if replace:
        (folder / "new").write_bytes(b"before")
    before = sorted(os.listdir(folder))
    with pytest.raises((KeyboardInterrupt, OSError)), new_file(str(folder / "new"), replace=replace) as fd:
        write_half(fd, ending)
    assert sorted(os.listdir(folder)) == before
    if replace:
        assert (folder / "new").read_bytes() == b"before"


def test_file_that_is_replaced_is_seen_to_be_another_one(folder: Path) -> None:
    old = folder / "old"
    for _ in range(3):
        old.write_bytes(b"before")
        seconds = int(old.stat().st_mtime)
        with new_file(str(old), replace=True) as fd:
            os.write(fd, b"after!")
        assert old.read_bytes() == b"after!"
        assert int(old.stat().st_mtime) != seconds
    assert os.listdir(folder) == ["old"]


def test_file_that_is_replaced_keeps_its_readers(folder: Path) -> None:
    old = folder / "old"
    old.write_bytes(b"secret")
    old.chmod(0o640)
    with new_file(str(old), mode=0o666, replace=True) as fd:
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o640
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_file_that_may_not_be_written_to_is_not_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "old").write_bytes(b"before")
    # Root may write to any file.
    monkeypatch.setattr(os, "access", lambda *_, **__: False)
    with pytest.raises(PermissionError), new_file(str(folder / "old"), replace=True):
        pass
    assert (folder / "old").read_bytes() == b"before"


def test_signal_waits_until_the_file_has_its_name_and_that_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "old").write_bytes(b"before")
    link, told = os.link, []

    def interrupted(*words: Any, **options: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        link(*words, **options)

    monkeypatch.setattr(os, "link", interrupted)

    def make(name: str, replace: bool) -> None:
        with new_file(str(folder / name), replace=replace, done=lambda: told.append(name)) as fd:
            os.write(fd, b"after")
        signal.raise_signal(signal.SIGINT)

    for name in ("new", "old"):
        with pytest.raises(KeyboardInterrupt):
            make(name, name == "old")
        assert (folder / name).read_bytes() == b"after"
    assert told == ["new", "old"]
    assert sorted(os.listdir(folder)) == ["new", "old"]


def test_link_that_leads_nowhere_is_not_replaced(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    with pytest.raises(OSError, match="Too many levels") as refused, new_file(f"{folder}/loop", replace=True):
        pass
    assert refused.value.errno == errno.ELOOP


@pytest.mark.parametrize("replace", [False, True])
def test_empty_name_is_refused_as_open_does(folder: Path, replace: bool) -> None:
    with pytest.raises(FileNotFoundError), new_file("", replace=replace):
        pass


def test_link_stays_one_when_what_it_leads_to_is_replaced(folder: Path) -> None:
    (folder / "real").write_bytes(b"before")
    (folder / "link").symlink_to("real")
    with new_file(str(folder / "link"), replace=True) as fd:
        os.write(fd, b"after")
    assert (folder / "link").is_symlink()
    assert (folder / "real").read_bytes() == b"after"


def test_what_is_there_is_not_replaced_unasked_nor_where_it_is_no_plain_file(folder: Path) -> None:
    (folder / "file").write_bytes(b"before")
    os.mkfifo(folder / "fifo")
    (folder / "folder").mkdir()
    for name, replace, error in (
        ("file", False, FileExistsError),
        ("fifo", True, FileExistsError),
        ("folder", True, IsADirectoryError),
    ):
        with pytest.raises(error), new_file(str(folder / name), replace=replace):
            pass
    # Somebody else was faster.
    with pytest.raises(FileExistsError), new_file(str(folder / "late")):
        (folder / "late").write_bytes(b"theirs")
    assert (folder / "late").read_bytes() == b"theirs"
    assert sorted(os.listdir(folder)) == ["fifo", "file", "folder", "late"]
    with pytest.raises(FileNotFoundError), new_file(str(folder / "no/where")):
        pass
