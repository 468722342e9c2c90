"""The disks of guests: made before the kernel needs them, refused where it would fail, and known by image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from umlab.daemon.disk import KeptDisk, disk_path, disks_on, kept_disks, prepare_disk
from umlab.errors import LabError
from umlab.guest.cmdline import DiskRoot, GuestSpec
from umlab.guest.disk.cow import CowFile, create_cow
from umlab.guest.disk.file_lock import lock_file
from umlab.guest.disk.image import image_path, new_image


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of a lab."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "state/umlab/office").mkdir(parents=True)
    return tmp_path / "state/umlab/office"


@pytest.fixture
def image() -> Path:
    with new_image("debian") as place, open(place / "image", "xb") as file:
        file.truncate(1 << 20)
    return image_path("debian")


def prepare(root: DiskRoot, state: Path) -> None:
    prepare_disk(GuestSpec("left", root=root), state)


def test_first_start_makes_the_cow_file_and_the_next_one_keeps_it(state: Path, image: Path) -> None:
    root = DiskRoot(str(disk_path(state, "left")), str(image))
    prepare(root, state)
    assert (state / "disks").stat().st_mode & 0o777 == 0o700
    with CowFile(root.path, write=True) as cow:
        assert cow.backing == str(image)
        os.pwrite(cow.fd, b"written", cow.header.data_offset)
    prepare(root, state)
    with CowFile(root.path) as cow:
        assert os.pread(cow.fd, 7, cow.header.data_offset) == b"written"


def test_cow_file_elsewhere_is_made_where_its_folder_is(tmp_path: Path, state: Path, image: Path) -> None:
    prepare(DiskRoot(str(tmp_path / "own.cow"), str(image)), state)
    assert (tmp_path / "own.cow").exists()
    with pytest.raises(LabError, match=r"cannot make .*/nowhere/own.cow: No such file"):
        prepare(DiskRoot(str(tmp_path / "nowhere/own.cow"), str(image)), state)


def test_missing_image_is_told_with_what_is_there(state: Path, image: Path) -> None:
    with pytest.raises(
        LabError, match="guest left: there is no image bookworm; there are debian; make one with"
    ):
        prepare(DiskRoot(str(disk_path(state, "left")), str(image_path("bookworm"))), state)
    with pytest.raises(LabError, match=r"/nowhere/x.img: No such file"):
        prepare(DiskRoot(str(disk_path(state, "left")), "/nowhere/x.img"), state)
    with pytest.raises(LabError, match=r"/nowhere/raw.img: No such file"):
        prepare(DiskRoot("/nowhere/raw.img"), state)


def test_changed_image_is_told(state: Path, image: Path) -> None:
    root = DiskRoot(str(disk_path(state, "left")), str(image))
    prepare(root, state)
    os.utime(image, (1, 1))
    with pytest.raises(LabError, match="was changed since"):
        prepare(root, state)


def test_disk_that_somebody_uses_is_refused(state: Path, image: Path) -> None:
    root = DiskRoot(str(disk_path(state, "left")), str(image))
    prepare(root, state)
    with CowFile(root.path, write=True) as cow:
        lock_file(cow.fd, root.path, exclusive=True)
        with pytest.raises(LabError, match=r"left.cow is in use by another program; stop that first"):
            prepare(root, state)


def test_disks_and_their_snapshots_are_known_by_their_image(state: Path, image: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(bytes(1 << 20))
    for path, backing in (
        (state / "disks/left.cow", image),
        (state / "snapshots/old/left.cow", image),
        (state / "disks/right.cow", other),
        (state.parent / "ring/disks/left.cow", image),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        create_cow(str(path), str(backing))
    (state / "disks/broken.cow").write_bytes(b"x")
    (state / "snapshots/.new-x").mkdir()
    (state / "snapshots/.new-x/left.cow").touch()
    assert list(map(str, disks_on(image))) == ["office/left", "office/left@old", "ring/left"]
    names = [str(disk) for disk in kept_disks("office")]
    assert names == ["office/broken", "office/left", "office/right", "office/left@old"]
    assert kept_disks("nowhere") == []
    assert kept_disks("ring") == [KeptDisk("ring", "left", None, state.parent / "ring/disks/left.cow")]


def test_guests_without_a_disk_need_nothing(state: Path) -> None:
    prepare_disk(GuestSpec("left"), state)
    assert list(state.iterdir()) == []


def test_place_that_cannot_be_made_is_told(state: Path, image: Path) -> None:
    (state / "disks").touch()
    with pytest.raises(LabError, match=r"^guest left: .*/disks: File exists$"):
        prepare(DiskRoot(str(disk_path(state, "left")), str(image)), state)
