"""A guest's root on an image of the store: what a lab file makes of it, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from umlab.errors import LabFileError, LabFileErrors
from umlab.guest.cmdline import DiskRoot
from umlab.lab.file import load

STATE = Path("/state/office")


@pytest.fixture(autouse=True)
def images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/data")


def root_of(folder: Path, root: str, state: Path | None = STATE) -> object:
    (folder / "lab.yaml").write_text(f"guests:\n  left:\n    root: {root}\n")
    return load(folder / "lab.yaml", runtime=Path("/run/office"), state=state).guests["left"].root


def refusal_of(folder: Path, root: str) -> str:
    with pytest.raises((LabFileError, LabFileErrors)) as refused:
        root_of(folder, root)
    return str(refused.value).replace(f"{folder}/", "")


def test_image_is_below_a_cow_file_of_the_guest_in_the_labs_state(tmp_path: Path) -> None:
    expected = DiskRoot("/state/office/disks/left.cow", "/data/umlab/images/debian.img")
    assert root_of(tmp_path, "{image: debian}") == expected


def test_image_with_a_slash_is_a_path_that_begins_at_the_file(tmp_path: Path) -> None:
    expected = DiskRoot("/state/office/disks/left.cow", str(tmp_path / "own/debian.img"))
    assert root_of(tmp_path, "{image: own/debian.img}") == expected


def test_state_is_the_one_of_the_lab_that_the_runtime_directory_is_named_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/home/me/state")
    root = root_of(tmp_path, "{image: debian}", state=None)
    assert root == DiskRoot("/home/me/state/umlab/office/disks/left.cow", "/data/umlab/images/debian.img")


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (
            "{image: debian, disk: d.cow}",
            "lab.yaml:3: guests.left.root.disk: an image has a COW file of its own",
        ),
        ("{image: debian, backing: b}", "lab.yaml:3: guests.left.root.backing: an image is its own backing"),
        (
            "{image: 'two words'}",
            "lab.yaml:3: guests.left.root.image: the image name 'two words' is not usable",
        ),
        ("{image: 'a b/c'}", "lab.yaml:3: guests.left.root.image: root image"),
        ("{image: }", "lab.yaml:3: guests.left.root.image: has no value"),
        ("{disk: }", "lab.yaml:3: guests.left.root.disk: has no value"),
        ("{backing: b}", "lab.yaml:3: guests.left.root.disk: must be given, or image"),
        ("{}", "lab.yaml:3: guests.left.root.disk: must be given, or image"),
        ("{imgae: a}", "did you mean image?"),
    ],
)
def test_wrong_roots_are_told_at_their_key(root: str, words: str, tmp_path: Path) -> None:
    assert words in refusal_of(tmp_path, root)


def test_what_is_wrong_with_an_image_is_told_once(tmp_path: Path) -> None:
    assert refusal_of(tmp_path, "{image: 'two words'}").count("lab.yaml:") == 1


def test_a_state_directory_that_no_kernel_can_be_told_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabFileError, match="must not contain ','"):
        root_of(tmp_path, "{image: debian}", state=Path("/a,b/office"))
