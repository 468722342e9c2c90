"""The store of images: what is in it, how something gets in, and when it goes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from support.forbidden import forbid
from umlab.errors import LabError
from umlab.guest.disk.image import find_image, image_path, list_images, new_image, remove_image


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of images, which is not there yet."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path / "umlab/images"


def make(name: str, data: bytes = b"image") -> Path:
    with new_image(name) as place:
        (place / "image").write_bytes(data)
    return image_path(name)


def test_image_is_read_only_and_alone(store: Path) -> None:
    path = make("debian")
    assert path == store / "debian.img"
    assert path.read_bytes() == b"image"
    assert path.stat().st_mode & 0o777 == 0o444
    assert os.listdir(store) == ["debian.img"]


def test_image_that_cannot_be_finished_is_not_there(store: Path) -> None:
    def fail(error: BaseException) -> None:
        with new_image("debian") as place:
            (place / "image").write_bytes(b"half")
            raise error

    with pytest.raises(KeyboardInterrupt):
        fail(KeyboardInterrupt())
    with pytest.raises(LabError, match=f"image debian cannot be made in {store}: No space left"):
        fail(OSError(28, "No space left on device"))
    assert os.listdir(store) == []


def test_name_that_is_taken_is_refused_before_and_after() -> None:
    path = make("debian")
    with pytest.raises(LabError, match=r"there is an image debian already; .*: umlab image rm debian"):
        make("debian", b"other")
    path.unlink()

    def race() -> None:
        with new_image("debian") as place:
            (place / "image").write_bytes(b"late")
            make("debian", b"first")

    with pytest.raises(LabError, match="there is an image debian already"):
        race()
    assert path.read_bytes() == b"first"


@pytest.mark.parametrize("name", ["", "-x", ".hidden", "a/b", "x" * 25, "two words", "debian:12"])
def test_unusable_names_are_refused(name: str, store: Path) -> None:
    with pytest.raises(LabError, match=r"the image name .* is not usable"):
        make(name)
    assert not store.exists()


def test_images_are_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make("debian")
    (tmp_path / "own.img").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert find_image("debian") == path
    assert find_image("./own.img") == tmp_path / "own.img"


def test_file_in_the_current_folder_is_no_image_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make("debian")
    for name in ("debian", "own.img"):
        (tmp_path / name).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert find_image("debian") == path
    with pytest.raises(LabError, match=r"there is no image own.img; .* or do you mean \./own.img\?$"):
        find_image("own.img")


def test_what_is_missing_is_told_with_what_is_there() -> None:
    with pytest.raises(LabError, match=r"no image debian; there is none yet; .*: umlab image build debian"):
        find_image("debian")
    make("one")
    make("two")
    with pytest.raises(LabError, match="there is no image debian; there are one, two;"):
        find_image("debian")
    with pytest.raises(LabError, match="there is no image file /nowhere/debian: No such file"):
        find_image("/nowhere/debian")


def test_folders_that_may_not_be_read_are_told(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("one")
    forbid(monkeypatch, store)
    for name, said in (("one", "there is no image one"), (f"{store}/one.img", "Permission denied")):
        with pytest.raises(LabError, match=said):
            find_image(name)
    with pytest.raises(LabError, match="there is no image one"):
        remove_image("one", [])
    with pytest.raises(LabError, match="neither a plain file"):
        find_image(str(tmp_path))


def test_list_has_sizes_and_contents(store: Path) -> None:
    assert list_images() == []
    with new_image("sparse") as place, open(place / "image", "xb") as file:
        file.truncate(1 << 30)
    make("btrfs", bytes(65_600) + b"_BHRfS_M")
    (store / ".hidden.img").touch()
    (store / "note").touch()
    btrfs, sparse = list_images()
    assert (btrfs.name, btrfs.file_system, btrfs.path) == ("btrfs", "btrfs", str(store / "btrfs.img"))
    assert (sparse.size, sparse.file_system) == (1 << 30, "")
    assert sparse.disk_size < 1 << 20


def test_image_that_is_needed_stays_unless_forced() -> None:
    path = make("debian")
    with pytest.raises(LabError, match=r"needed by a/left, a/left@old, .* umlab image rm debian --force"):
        remove_image("debian", ["a/left", "a/left@old"])
    assert path.exists()
    remove_image("debian", ["a/left"], force=True)
    assert not path.exists()
    with pytest.raises(LabError, match="there is no image debian"):
        remove_image("debian", [])


def test_image_that_a_kernel_has_locked_stays() -> None:
    path = make("debian")
    with contextlib.ExitStack() as stack:
        fd = os.open(path, os.O_RDONLY)
        stack.callback(os.close, fd)
        fcntl.lockf(fd, fcntl.LOCK_SH)
        # A process is not kept out by locks of its own.
        pid = os.fork()
        if not pid:
            try:
                remove_image("debian", [])
            except LabError as error:
                os._exit(0 if f"in use by process {os.getppid()}" in str(error) else 1)
            os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    remove_image("debian", [])
    assert not path.exists()
