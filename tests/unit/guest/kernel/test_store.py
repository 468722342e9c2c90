"""Kernels by name: which one a word stands for, and what is said of one that cannot be run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.fake_make import KERNEL, RELEASE
from support.forbidden import forbid
from umlab.errors import LabError
from umlab.guest.kernel import store as kernel_store
from umlab.guest.kernel.store import Kernel, find_kernel, kernel_names, remove_kernel, replace_kernel


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the store, empty, with nothing else to be found."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(kernel_store, "DEFAULT_KERNEL", str(tmp_path / "debian"))
    monkeypatch.setattr(kernel_store, "MODULES_ROOT", str(tmp_path / "debian-modules"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data/umlab/kernels"


def kernel(path: Path, text: str = KERNEL) -> Path:
    """Make a program that answers as a kernel does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_debians_is_the_default(store: Path, tmp_path: Path) -> None:
    with pytest.raises(LabError, match="install the package user-mode-linux"):
        find_kernel()
    program = kernel(tmp_path / "debian")
    assert find_kernel() == find_kernel("debian") == Kernel(str(program), RELEASE, None, "debian")
    (tmp_path / "debian-modules" / RELEASE).mkdir(parents=True)
    assert find_kernel().modules_directory == f"{tmp_path}/debian-modules/{RELEASE}"


def test_name_is_one_of_the_store_and_a_path_is_a_file(store: Path, tmp_path: Path) -> None:
    kernel(store / "mine/linux")
    (store / "mine/modules/lib/modules" / RELEASE).mkdir(parents=True)
    kernel(tmp_path / "mine")
    found = find_kernel("mine")
    assert found == Kernel(
        f"{store}/mine/linux", RELEASE, f"{store}/mine/modules/lib/modules/{RELEASE}", "mine"
    )
    assert find_kernel("./mine") == Kernel(f"{tmp_path}/mine", RELEASE, None, "./mine")
    # Its folder, and its file, are the same kernel.
    for word in (str(store / "mine"), str(store / "mine/linux")):
        assert find_kernel(word).modules_directory == found.modules_directory


@pytest.mark.parametrize("word", [".", "../tree", "linux-tree/", "./linux"])
def test_folder_in_which_one_was_built_is_run_in_place(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    tree = tmp_path / "tree"
    kernel(tree / "linux")
    (tree / ".config").write_text("CONFIG_UML=y\n")
    (tree / "modules.builtin").write_text("kernel/fs/overlayfs/overlay.ko\n")
    (tree / "linux-tree").symlink_to(tree)
    monkeypatch.chdir(tree)
    found = find_kernel(word)
    assert os.path.samefile(found.path, tree / "linux")
    assert (found.release, found.name) == (RELEASE, word)
    assert (
        Path(found.modules_directory or "", "modules.builtin").read_text()
        == "kernel/fs/overlayfs/overlay.ko\n"
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("CONFIG_UML=y\n", r"no kernel was built in .*tree; build it: make -C .*tree ARCH=um linux$"),
        ("CONFIG_X86=y\n", "configured for another architecture, not for User Mode Linux"),
        (None, r"build it: make -C .*tree ARCH=um defconfig linux$"),
    ],
)
def test_tree_where_none_was_built_is_told_how(
    store: Path, tmp_path: Path, config: str | None, words: str
) -> None:
    tree = tmp_path / "tree"
    (tree / "arch/um").mkdir(parents=True)
    (tree / "Kbuild").touch()
    if config:
        (tree / ".config").write_text(config)
    with pytest.raises(LabError, match=words):
        find_kernel(str(tree))


def test_what_is_no_kernel_is_told(store: Path, tmp_path: Path) -> None:
    kernel(store / "a/linux")
    kernel(store / "b/linux")
    (store / ".c.new").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    kernel(tmp_path / "unmarked").chmod(0o644)
    (tmp_path / "bzImage").write_bytes(b"MZ".ljust(0x202, b"\0") + b"HdrS" + bytes(1000))
    kernel(tmp_path / "talks", "#!/bin/sh\necho a b c\n")
    (tmp_path / "elf").write_bytes(b"\x7fELF\x02" + bytes(60))
    (tmp_path / "elf").chmod(0o755)
    (tmp_path / "loop").symlink_to("loop")
    for word, words in (
        ("./loop", "cannot read the kernel .*/loop: Too many levels"),
        ("file", r"no kernel 'file'; there is debian, a, b; `umlab kernel build --name file`.* \./file\?"),
        ("none", "there is no kernel 'none'"),
        ("x" * 30, "the kernel name 'xx"),
        ("../a b", "there is no kernel .*/a b$"),
        ("./file", "is no program at all"),
        ("./folder", "there is no kernel .*/folder/linux$"),
        ("./unmarked", r"may not be executed: chmod \+x .*/unmarked"),
        ("./bzImage", r"kernel for an x86 machine \(a bzImage\)"),
        ("./talks", "does not tell its version"),
        ("./elf", "cannot run the kernel .*Exec format error"),
        ("./\0", "null byte"),
    ):
        with pytest.raises(LabError, match=words):
            find_kernel(word)


def test_folders_that_may_not_be_read_are_told(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.mkdir(parents=True, exist_ok=True)
    for folder, call in (
        (store, kernel_names),
        (store, lambda: find_kernel("mine")),
        (store, lambda: remove_kernel("mine")),
        (tmp_path / "closed", lambda: find_kernel(f"{tmp_path}/closed/linux")),
        (tmp_path / "closed", lambda: find_kernel(f"{tmp_path}/closed")),
    ):
        with monkeypatch.context() as patch:
            forbid(patch, folder)
            with pytest.raises(LabError):
                call()


def test_new_one_takes_the_place_of_the_old_one_as_a_whole(store: Path, tmp_path: Path) -> None:
    for release in ("1.0", "2.0"):
        kernel(tmp_path / "new/linux", f"#!/bin/sh\necho {release}\n")
        (tmp_path / "new" / release).touch()
        replace_kernel(tmp_path / "new", "mine")
        assert find_kernel("mine").release == release
        assert sorted(os.listdir(store / "mine")) == [release, "linux"]
    assert kernel_names() == os.listdir(store) == ["mine"]
    kernel(tmp_path / "new/linux", "#!/bin/sh\nexit 1\n")
    with pytest.raises(LabError, match="does not know --version"):
        replace_kernel(tmp_path / "new", "mine")
    assert find_kernel("mine").release == "2.0"


def test_what_was_killed_in_the_midst_is_no_hindrance(store: Path, tmp_path: Path) -> None:
    for name in (".mine.new", ".mine.old"):
        kernel(store / name / "linux")
    assert kernel_names() == []
    kernel(tmp_path / "new/linux")
    replace_kernel(tmp_path / "new", "mine")
    assert os.listdir(store) == ["mine"]


def test_old_one_is_back_when_the_new_one_cannot_be_moved(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel(tmp_path / "new/linux", "#!/bin/sh\necho 1.0\n")
    replace_kernel(tmp_path / "new", "mine")
    kernel(tmp_path / "new/linux", "#!/bin/sh\necho 2.0\n")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path.name == ".mine.new":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="No space"):
        replace_kernel(tmp_path / "new", "mine")
    assert find_kernel("mine").release == "1.0"
    assert os.listdir(store) == ["mine"]


def test_removed_one_is_gone(store: Path, tmp_path: Path) -> None:
    kernel(tmp_path / "new/linux")
    replace_kernel(tmp_path / "new", "mine")
    remove_kernel("mine")
    assert os.listdir(store) == []
    with pytest.raises(LabError, match="there is no kernel 'mine'"):
        remove_kernel("mine")
    with pytest.raises(LabError, match=r"debian is .*take another name"):
        replace_kernel(tmp_path / "new", "debian")
