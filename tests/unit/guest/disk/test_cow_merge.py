"""Images of COW files: right, sparse, and there as a whole or not at all, whatever ends the work."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.cow_files import KINDS, SECTOR, merged, places, write_cow
from support.forbidden import refuse_read_only
from umlab.errors import LabError
from umlab.guest.disk.cow import CowFile
from umlab.guest.disk.cow_check import cow_facts
from umlab.guest.disk.cow_merge import merge_cow, merge_in_place
from umlab.guest.disk.file_lock import lock_file

SIZE = (1 << 20) + 100
CHANGES = {0: b"A" * SECTOR, 5: bytes(SECTOR), 6: b"C" * SECTOR, 2047: b"D" * SECTOR}
#: What a merge asks the kernel for that can fail, or after which it can be killed.
CALLS = ("ftruncate", "pwrite", "fchown", "fchmod", "fsync", "link", "replace")

#: Merges in place, and is killed at a call.
_KILLED = """
import os, signal, sys
from umlab.guest.disk.cow_merge import merge_in_place

def fatal(call):
    def counted(*words, **options):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*words, **options)
    return counted

left = int(sys.argv[2])
for name in sys.argv[3:]:
    setattr(os, name, fatal(getattr(os, name)))
merge_in_place(sys.argv[1])
"""


class Pair:
    """A COW file and its backing file.

    Attributes:
        folder: The only other thing in it is what a test makes.
    """

    def __init__(self, folder: Path, kind: str = "v3", changes: dict[int, bytes] = CHANGES) -> None:
        self.folder, self.cow, self.backing = folder, folder / "cow", folder / "image"
        self.backing.write_bytes(os.urandom(SIZE))
        os.utime(self.backing, (7, 7))
        write_cow(self.cow, kind, self.backing, changes)
        self.before = self.contents()
        self.expected = merged(self.backing.read_bytes(), changes)

    def contents(self) -> dict[str, bytes]:
        """Return every file with its bytes."""
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_image_is_what_a_guest_sees(tmp_path: Path, kind: str) -> None:
    pair, new = Pair(tmp_path, kind), tmp_path / "new"
    told: list[tuple[int, int]] = []
    size = merge_cow(str(pair.cow), str(new), progress=lambda done, total: told.append((done, total)))
    assert new.read_bytes() == pair.expected
    assert size == SIZE
    assert told[-1] == (SIZE, SIZE)
    assert pair.contents() == {**pair.before, "new": pair.expected}


def test_last_sector_that_a_guest_wrote_is_in_the_image_as_a_whole(tmp_path: Path) -> None:
    pair, new = Pair(tmp_path, changes={2048: b"tail" * 128}), tmp_path / "new"
    assert merge_cow(str(pair.cow), str(new)) == 2049 * SECTOR
    assert new.read_bytes() == pair.expected
    assert new.read_bytes().endswith(b"tail" * 128)


def test_holes_and_blocks_of_zeros_take_no_room(tmp_path: Path) -> None:
    backing, cow, new = (tmp_path / name for name in ("image", "cow", "new"))
    with backing.open("wb") as file:
        file.truncate(1 << 28)
        os.pwrite(file.fileno(), b"x" * 4096, 1 << 27)
        os.pwrite(file.fileno(), bytes(1 << 20), 1 << 24)
    changes = {n: bytes(SECTOR) for n in range(4096)} | {n: b"y" * SECTOR for n in range(9000, 9100)}
    write_cow(cow, "v3", backing, changes)
    merge_cow(str(cow), str(new))
    # 15 blocks of changes, one of the image, and what a file system needs beside.
    assert new.stat().st_blocks * 512 < 32 * 4096
    assert new.stat().st_size == 1 << 28
    with new.open("rb") as file:
        assert os.pread(file.fileno(), 101 * SECTOR, 9000 * SECTOR) == b"y" * (100 * SECTOR) + bytes(SECTOR)
        assert os.pread(file.fileno(), 4097, 1 << 27) == b"x" * 4096 + b"\0"


def test_merge_in_place_puts_the_image_where_the_backing_file_was(pair: Pair) -> None:
    os.chmod(pair.backing, 0o640)
    link = pair.folder / "link"
    link.symlink_to("image")
    write_cow(pair.cow, "v3", link, CHANGES)
    assert merge_in_place(str(pair.cow)) == str(pair.backing.resolve())
    assert pair.backing.read_bytes() == pair.expected
    assert pair.backing.stat().st_mode & 0o777 == 0o640
    assert link.is_symlink()
    assert int(pair.backing.stat().st_mtime) != cow_facts(str(pair.cow)).mtime
    with pytest.raises(LabError, match="mtime mismatch"):
        merge_in_place(str(pair.cow))


def test_read_only_file_is_merged_in_place(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_read_only(monkeypatch)
    pair.cow.chmod(0o444)
    merge_in_place(str(pair.cow))
    assert pair.backing.read_bytes() == pair.expected


def test_another_backing_file_may_be_named(pair: Pair) -> None:
    moved = pair.folder / "moved"
    pair.backing.rename(moved)
    with pytest.raises(LabError, match="cannot open"):
        merge_cow(str(pair.cow), str(pair.folder / "new"))
    merge_cow(str(pair.cow), str(pair.folder / "new"), backing=str(moved))
    assert (pair.folder / "new").read_bytes() == pair.expected
    assert merge_in_place(str(pair.cow), backing=str(moved)) == str(moved.resolve())
    assert moved.read_bytes() == pair.expected


@pytest.mark.parametrize("in_place", [False, True])
def test_what_does_not_belong_together_is_refused(pair: Pair, in_place: bool) -> None:
    def refused(words: str) -> None:
        before = pair.contents()
        with pytest.raises(LabError, match=words):
            merge_in_place(str(pair.cow)) if in_place else merge_cow(str(pair.cow), str(pair.folder / "new"))
        assert pair.contents() == before

    os.utime(pair.backing, (8, 8))
    refused("mtime mismatch")
    os.utime(pair.backing, (7, 7))
    os.truncate(pair.cow, places("v3", SIZE)[2] + 2048 * SECTOR - 1)
    refused("was cut short")
    data = pair.backing.read_bytes()
    pair.backing.write_bytes(pair.before["cow"][:SIZE])
    os.utime(pair.backing, (7, 7))
    write_cow(pair.cow, "v3", pair.backing, CHANGES)
    refused("a COW file itself")
    pair.backing.write_bytes(data[:-1])
    refused("Size mismatch")
    pair.backing.unlink()
    refused("No such file")


def test_target_that_is_one_of_both_or_in_use_is_refused(pair: Pair) -> None:
    new = pair.folder / "new"
    new.write_bytes(b"before")
    for target, replace, words in (
        (pair.cow, True, "is the COW file itself"),
        (pair.backing, True, "is the backing file itself"),
        (new, False, "there already; use --force"),
    ):
        with pytest.raises(LabError, match=words):
            merge_cow(str(pair.cow), str(target), replace=replace)
    fd = os.open(new, os.O_RDWR)
    try:
        lock_file(fd, str(new), exclusive=True)
        with pytest.raises(LabError, match="new is in use by"):
            merge_cow(str(pair.cow), str(new), replace=True)
    finally:
        os.close(fd)
    assert pair.contents() == {**pair.before, "new": b"before"}
    merge_cow(str(pair.cow), str(new), replace=True)
    assert new.read_bytes() == pair.expected


def test_backing_file_with_another_name_is_not_merged_into(pair: Pair) -> None:
    os.link(pair.backing, pair.folder / "other")
    with pytest.raises(LabError, match="no plain file of one name; merge into a new file"):
        merge_in_place(str(pair.cow))


def test_files_that_guests_run_on_are_not_merged(pair: Pair) -> None:
    with CowFile(str(pair.cow), write=True) as file:
        lock_file(file.fd, str(pair.cow), exclusive=True)
        for merge in (lambda: merge_in_place(str(pair.cow)), lambda: merge_cow(str(pair.cow), "/no/where")):
            with pytest.raises(LabError, match="cow is in use by"):
                merge()
    fd = os.open(pair.backing, os.O_RDONLY)
    try:
        # A guest with another COW file.
        lock_file(fd, str(pair.backing), exclusive=False)
        with pytest.raises(LabError, match="image is in use by"):
            merge_in_place(str(pair.cow))
        merge_cow(str(pair.cow), str(pair.folder / "new"))
    finally:
        os.close(fd)


@pytest.mark.parametrize("changed", ["cow", "image"])
def test_file_that_changes_meanwhile_ends_the_work(pair: Pair, changed: str) -> None:
    def touch(done: int, total: int) -> None:
        os.utime(pair.folder / changed, (9, 9))

    with pytest.raises(LabError, match="was changed while they were merged"):
        merge_cow(str(pair.cow), str(pair.folder / "new"), progress=touch)
    assert pair.contents() == pair.before


def counted(monkeypatch: pytest.MonkeyPatch, act: Callable[[int], None]) -> None:
    """Call a function with a number before each call of :data:`CALLS`, the first one 1."""
    number = 0

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*words: Any, **options: Any) -> Any:
            nonlocal number
            number += 1
            act(number)
            return call(*words, **options)

        return counting

    for name in CALLS:
        monkeypatch.setattr(os, name, wrapped(getattr(os, name)))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failure_at_any_call_loses_nothing(tmp_path: Path, in_place: bool, error: BaseException) -> None:
    def ended(pair: Pair, at: int) -> str:
        """Merge with a failing call, and return what comes of it."""

        def fail(number: int) -> None:
            if number == at:
                raise error

        with pytest.MonkeyPatch.context() as patch:
            counted(patch, fail)
            try:
                merge_in_place(str(pair.cow)) if in_place else merge_cow(str(pair.cow), f"{pair.folder}/new")
            except (LabError, KeyboardInterrupt) as raised:
                return str(raised) or "interrupted"
        return "merged"

    for at in range(1, 30):
        folder = tmp_path / str(at)
        folder.mkdir()
        pair = Pair(folder)
        ending = ended(pair, at)
        whole = {**pair.before, "image" if in_place else "new": pair.expected}
        if ending == "merged":
            break
        assert ending == "interrupted" or ending.endswith("No space left on device; nothing is changed")
        # An interrupt may come when the image has its name.
        assert pair.contents() in (pair.before, whole if ending == "interrupted" else None)
    assert ending == "merged"
    assert at > 8
    assert pair.contents() == whole


def test_kill_at_any_call_loses_nothing(tmp_path: Path) -> None:
    kills = 0
    while True:
        folder = tmp_path / str(kills)
        folder.mkdir()
        pair = Pair(folder)
        # The first calls are alike.
        command = [sys.executable, "-c", _KILLED, str(pair.cow), str(1 + kills), *CALLS[2:]]
        done = subprocess.run(command, capture_output=True)
        assert done.stderr == b""
        after = pair.contents()
        hidden = [name for name in after if name.startswith(".umlab-")]
        assert after["cow"] == pair.before["cow"]
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL
        kills += 1
        # The moment before it is renamed is the only one in which the new image has another name.
        assert all(after[name] == pair.expected for name in hidden)
        assert after["image"] in (pair.before["image"], pair.expected)
        assert len(after) == 2 + len(hidden)
    assert kills > 4
    assert after == {"cow": pair.before["cow"], "image": pair.expected}
