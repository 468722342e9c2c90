"""Snapshots: whole or not at all, never of a disk in use, and never put over an image that was changed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from umlab.daemon.disk import KeptDisk, disk_path
from umlab.errors import LabError
from umlab.guest.disk.cow import CowFile, create_cow
from umlab.guest.disk.file_lock import lock_file
from umlab.lab import snapshot
from umlab.lab.snapshot import Target, find_target

OFFICE = Target("office")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a lab whose guests left and right have disks."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    state = tmp_path / "state/umlab/office"
    (state / "disks").mkdir(parents=True)
    (tmp_path / "image").write_bytes(bytes(1 << 20))
    for guest in ("left", "right"):
        create_cow(str(disk_path(state, guest)), str(tmp_path / "image"))
        write(state, guest, b"old")
    return state


def write(state: Path, guest: str, data: bytes) -> None:
    """Write to a disk as its guest would."""
    with CowFile(str(disk_path(state, guest)), write=True) as cow:
        os.pwrite(cow.fd, b"\1", cow.header.bitmap_offset)
        os.pwrite(cow.fd, data, cow.header.data_offset)


def read(state: Path, guest: str) -> bytes:
    with CowFile(str(disk_path(state, guest))) as cow:
        return os.pread(cow.fd, 3, cow.header.data_offset)


def ignore(_: KeptDisk) -> None:
    """Nobody looks."""


def names(disks: list[KeptDisk]) -> list[str]:
    return list(map(str, disks))


def test_what_was_saved_is_put_back(state: Path) -> None:
    told: list[str] = []
    kept = snapshot.save(OFFICE, "clean", lambda disk: told.append(str(disk)))
    assert told == ["office/left", "office/right"]
    assert names(kept) == ["office/left@clean", "office/right@clean"]
    write(state, "left", b"new")
    write(state, "right", b"new")
    assert names(snapshot.restore(Target("office", "left"), "clean", ignore)) == ["office/left"]
    assert (read(state, "left"), read(state, "right")) == (b"old", b"new")
    snapshot.restore(OFFICE, "clean", ignore)
    assert read(state, "right") == b"old"
    # What is put back is a copy: the snapshot is good for the next time.
    write(state, "left", b"new")
    snapshot.restore(OFFICE, "clean", ignore)
    assert read(state, "left") == b"old"
    assert os.listdir(state / "disks") == os.listdir(state / "snapshots/clean")


def test_copies_are_sparse_and_nobody_writes_to_them(state: Path) -> None:
    (copy, _) = snapshot.save(OFFICE, "clean", ignore)
    status = copy.path.stat()
    assert status.st_mode & 0o777 == 0o444
    assert status.st_size == disk_path(state, "left").stat().st_size
    assert status.st_blocks * 512 < 1 << 18
    snapshot.restore(OFFICE, "clean", ignore)
    assert disk_path(state, "left").stat().st_mode & 0o600 == 0o600


def test_disk_that_is_gone_is_put_back(state: Path) -> None:
    snapshot.save(OFFICE, "clean", ignore)
    disk_path(state, "left").unlink()
    snapshot.restore(OFFICE, "clean", ignore)
    assert read(state, "left") == b"old"


def test_running_guest_is_refused_and_nothing_is_changed(state: Path) -> None:
    snapshot.save(Target("office", "left"), "clean", ignore)
    write(state, "left", b"new")
    path = str(disk_path(state, "right"))
    with CowFile(path, write=True) as cow:
        lock_file(cow.fd, path, exclusive=True)
        with pytest.raises(LabError, match=r"right.cow is in use by .*: umlab console office/right -- halt$"):
            snapshot.save(OFFICE, "later", ignore)
    path = str(disk_path(state, "left"))
    with CowFile(path, write=True) as cow:
        lock_file(cow.fd, path, exclusive=True)
        with pytest.raises(LabError, match=r"left.cow is in use by"):
            snapshot.restore(OFFICE, "clean", ignore)
    assert os.listdir(state / "snapshots") == ["clean"]
    assert read(state, "left") == b"new"


def test_changed_image_is_refused_with_the_reason(state: Path, tmp_path: Path) -> None:
    snapshot.save(OFFICE, "clean", ignore)
    write(state, "left", b"new")
    os.utime(tmp_path / "image", (1, 1))
    with pytest.raises(LabError, match=r"^office/left@clean: mtime mismatch"):
        snapshot.restore(OFFICE, "clean", ignore)
    with pytest.raises(LabError, match=r"^office/left: mtime mismatch"):
        snapshot.save(OFFICE, "later", ignore)
    assert read(state, "left") == b"new"
    (listed, _) = snapshot.list_snapshots()
    assert "mtime mismatch" in (listed.problem or "")
    (tmp_path / "image").unlink()
    with pytest.raises(LabError, match=r"office/left@clean: cannot open .*/image: No such file"):
        snapshot.restore(OFFICE, "clean", ignore)


def test_copy_that_was_cut_short_is_refused(state: Path) -> None:
    snapshot.save(OFFICE, "clean", ignore)
    write(state, "left", b"new")
    copy = state / "snapshots/clean/left.cow"
    copy.chmod(0o644)
    os.truncate(copy, 8200)
    problems = {each.guest: each.problem for each in snapshot.list_snapshots()}
    assert "left.cow was cut short" in (problems["left"] or "")
    assert problems["right"] is None
    with pytest.raises(LabError, match=r"^office/left@clean: .* was cut short"):
        snapshot.restore(OFFICE, "clean", ignore)
    assert read(state, "left") == b"new"
    os.truncate(disk_path(state, "left"), 8200)
    with pytest.raises(LabError, match=r"^office/left: .* was cut short"):
        snapshot.save(OFFICE, "later", ignore)


def test_signal_waits_until_all_disks_are_put_back_and_told(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot.save(OFFICE, "clean", ignore)
    for guest in ("left", "right"):
        write(state, guest, b"new")
    replace, told = os.replace, []

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        snapshot.restore(OFFICE, "clean", ignore, lambda put: told.extend(names(put)))
    assert told == ["office/left", "office/right"]
    assert (read(state, "left"), read(state, "right")) == (b"old", b"old")
    assert sorted(os.listdir(state / "disks")) == ["left.cow", "right.cow"]


def test_full_disk_leaves_everything_as_it_was(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot.save(OFFICE, "clean", ignore)
    write(state, "left", b"new")
    copies: list[int] = []

    def fail_at_the_second(source: int, target: int, _: object) -> None:
        copies.append(target)
        if len(copies) % 2 == 0:
            raise OSError(28, "No space left on device")
        os.pwrite(target, os.pread(source, 1 << 20, 0), 0)

    monkeypatch.setattr(snapshot, "copy_file", fail_at_the_second)
    with pytest.raises(
        LabError, match=r"the snapshot later of office cannot be made: No space left on device$"
    ):
        snapshot.save(OFFICE, "later", ignore)
    with pytest.raises(
        LabError, match=r"the disk of office, as it was at clean, cannot be made: No space left"
    ):
        snapshot.restore(OFFICE, "clean", ignore)
    assert os.listdir(state / "snapshots") == ["clean"]
    assert sorted(os.listdir(state / "disks")) == ["left.cow", "right.cow"]
    assert read(state, "left") == b"new"


def test_name_that_is_taken_is_refused(state: Path) -> None:
    snapshot.save(OFFICE, "clean", ignore)
    with pytest.raises(
        LabError, match=r"office/left has a snapshot clean already; .*: umlab snapshot rm office/left clean$"
    ):
        snapshot.save(Target("office", "left"), "clean", ignore)
    with pytest.raises(LabError, match=r"the snapshot name '../x' is not usable"):
        snapshot.save(OFFICE, "../x", ignore)


def test_part_of_one_guest_is_saved_beside_those_of_others(state: Path) -> None:
    left = Target("office", "left")
    snapshot.save(OFFICE, "clean", ignore)
    snapshot.remove(left, "clean")
    write(state, "left", b"new")
    assert names(snapshot.save(left, "clean", ignore)) == ["office/left@clean"]
    for guest in ("left", "right"):
        write(state, guest, b"xxx")
    snapshot.restore(OFFICE, "clean", ignore)
    assert (read(state, "left"), read(state, "right")) == (b"new", b"old")
    with pytest.raises(
        LabError, match=r"^office has a snapshot clean already; .* umlab snapshot rm office c"
    ):
        snapshot.save(OFFICE, "clean", ignore)


def test_part_that_comes_meanwhile_is_not_replaced_and_of_the_others_none_is_there(state: Path) -> None:
    folder = state / "snapshots/clean"
    folder.mkdir(parents=True)
    (folder / "ring.cow").touch()

    def be_faster(disk: KeptDisk) -> None:
        (folder / "right.cow").write_bytes(b"first")

    with pytest.raises(
        LabError, match=r"^office/right has a snapshot clean already; .*rm office/right clean$"
    ):
        snapshot.save(OFFICE, "clean", be_faster)
    assert sorted(os.listdir(folder)) == ["right.cow", "ring.cow"]
    assert (folder / "right.cow").read_bytes() == b"first"


def test_what_is_not_there_is_told_with_what_is(state: Path) -> None:
    with pytest.raises(LabError, match="office has no snapshot clean; there is none yet"):
        snapshot.restore(OFFICE, "clean", ignore)
    snapshot.save(Target("office", "left"), "old", ignore)
    with pytest.raises(LabError, match="office has no snapshot clean; there are old"):
        snapshot.remove(OFFICE, "clean")
    with pytest.raises(LabError, match="office/middle has no disk that is kept"):
        snapshot.save(Target("office", "middle"), "old", ignore)


def test_list_has_each_disk_of_each_snapshot(state: Path, tmp_path: Path) -> None:
    assert snapshot.list_snapshots() == []
    snapshot.save(Target("office", "right"), "one", ignore)
    snapshot.save(OFFICE, "two", ignore)
    os.utime(state / "snapshots/one/right.cow", (1, 1))
    found = snapshot.list_snapshots()
    assert [(each.name, each.guest) for each in found] == [
        ("one", "right"),
        ("two", "left"),
        ("two", "right"),
    ]
    assert found[0].made_at == 1
    assert found[0].backing == str(tmp_path / "image")
    assert found[0].problem is None
    assert [each.name for each in snapshot.list_snapshots(Target("office", "left"))] == ["two"]


def test_part_of_one_guest_is_removed_and_the_last_one_takes_the_folders_along(state: Path) -> None:
    for name in ("clean", "other"):
        snapshot.save(OFFICE, name, ignore)
    assert names(snapshot.remove(Target("office", "left"), "clean")) == ["office/left@clean"]
    assert os.listdir(state / "snapshots/clean") == ["right.cow"]
    snapshot.remove(OFFICE, "clean")
    assert os.listdir(state / "snapshots") == ["other"]
    snapshot.remove(OFFICE, "other")
    assert os.listdir(state) == ["disks"]
    snapshot.save(OFFICE, "clean", ignore)


def test_words_stand_for_labs_and_guests(state: Path) -> None:
    assert find_target("office") == OFFICE
    assert find_target("office/left") == find_target("left") == Target("office", "left")
    with pytest.raises(
        LabError, match=r"no lab and no guest ring has .*; there are disks of office/left, office/r"
    ):
        find_target("ring")
    ring = state.parent / "ring/disks"
    ring.mkdir(parents=True)
    (ring / "left.cow").touch()
    with pytest.raises(LabError, match="several labs have a guest left; write office/left or ring/left"):
        find_target("left")
    with pytest.raises(LabError, match=r"the lab name '..' is not usable"):
        find_target("../x/left")
