"""Sources of kernels, what is none, and the programs that build them."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.fake_make import FakeMake
from support.forbidden import forbid
from umlab.errors import LabError
from umlab.guest.kernel import source as kernel_source
from umlab.guest.kernel.source import KernelSource, build_programs, find_source


@pytest.fixture
def fake(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMake:
    monkeypatch.setattr(kernel_source, "SOURCE_ROOT", str(short_dir / "usr"))
    (short_dir / "usr").mkdir()
    return FakeMake(short_dir, monkeypatch)


def test_tree_archive_and_package_are_found(fake: FakeMake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fake.folder)
    (fake.folder / "v6.9.tar.gz").touch()
    (fake.folder / "usr/linux-source-6.12.tar.xz").touch()
    tree = find_source("linux-6.12")
    assert tree == find_source("./linux-6.12/") == KernelSource(str(fake.tree), is_tree=True)
    assert tree.name == "linux-6.12"
    assert find_source("v6.9.tar.gz").name == "v6.9"
    package = find_source("linux-source-6.12")
    assert package == KernelSource(f"{fake.folder}/usr/linux-source-6.12.tar.xz", is_tree=False)
    assert package.name == "linux-source-6.12"


def test_what_is_no_source_is_told(fake: FakeMake) -> None:
    (fake.folder / "text").touch()
    for word, words in (
        (
            "linux-source-9.9",
            r"there is no kernel source .*/usr/linux-source-9\.9\.tar\.xz; install the package",
        ),
        ("nothing", "there is no kernel source nothing: no folder, no archive$"),
        ("./linux-source-6.12/x", "no folder, no archive$"),
        (str(fake.folder / "text"), "neither a kernel's source tree nor an archive"),
        (str(fake.folder / "usr"), "is no kernel's source tree"),
    ):
        with pytest.raises(LabError, match=words):
            find_source(word)


@pytest.mark.parametrize("trace", [".config", "include/config/", "arch/um/include/generated/"])
def test_tree_that_was_built_in_place_is_told_how_it_can_be_used(fake: FakeMake, trace: str) -> None:
    if trace.endswith("/"):
        (fake.tree / trace).mkdir(parents=True)
    else:
        (fake.tree / trace).touch()
    with pytest.raises(LabError, match=r"built in its own folder.*--kernel.*make ARCH=um mrproper"):
        find_source(str(fake.tree))


@pytest.mark.parametrize(
    ("path", "unpackers"),
    [("/x/linux.tar.xz", {"tar": "tar", "xz": "xz-utils"}), ("/x/linux.tar", {"tar": "tar"}), ("/x", {})],
)
def test_programs_that_are_needed_are_those_of_the_source(path: str, unpackers: dict[str, str]) -> None:
    tree = build_programs(KernelSource("/x", is_tree=True))
    assert (tree["gcc"], tree["depmod"]) == ("build-essential", "kmod")
    assert build_programs(KernelSource(path, is_tree=path == "/x")) == tree | unpackers


def test_folder_that_may_not_be_read_is_no_source(fake: FakeMake, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, fake.tree)
    with pytest.raises(LabError, match="is no kernel's source tree"):
        find_source(str(fake.tree))


def test_archive_that_was_replaced_is_another_one(fake: FakeMake) -> None:
    path = fake.folder / "a.tar"
    path.write_bytes(b"1")
    before = find_source(str(path)).identity
    assert before == find_source(str(path)).identity
    path.write_bytes(b"22")
    assert find_source(str(path)).identity != before
