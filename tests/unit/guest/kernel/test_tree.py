"""The modules of a kernel tree, without installing them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from umlab.errors import LabError, RemoteProtocolError
from umlab.guest.kernel import tree as kernel_tree
from umlab.guest.kernel.module import load_index, read_module
from umlab.guest.kernel.tree import modules_in_place, parse_order

#: Writes what it finds, as the real one does for modules that need nothing.
DEPMOD = """#!/bin/sh
cd "$2/lib/modules/$3" || exit
[ -e modules.order ] && [ -e modules.builtin ] || exit 3
find kernel -name '*.ko' | sort | sed 's/$/:/' >modules.dep
echo run >>"$RUNS"
"""


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a tree with two modules, one of which has been built."""
    tree = tmp_path / "tree"
    (tree / "drivers/net").mkdir(parents=True)
    (tree / "drivers/net/dummy.ko").write_bytes(b"dummy")
    (tree / "modules.order").write_text("drivers/net/dummy.o\nfs/later.o\n")
    (tree / "modules.builtin").write_text("kernel/fs/overlayfs/overlay.ko\n")
    program = tmp_path / "bin/depmod"
    program.parent.mkdir()
    program.write_text(DEPMOD)
    program.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    return tree


def runs(tree: Path) -> int:
    path = tree.parent / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_modules_are_those_of_the_tree(tree: Path) -> None:
    directory = modules_in_place(tree, "6.12.1")
    assert directory.endswith("/lib/modules/6.12.1")
    _, index = load_index("6.12.1", directory)
    assert index.load_order(["overlay"]) == []
    (path,) = index.load_order(["dummy"])
    assert path == "kernel/drivers/net/dummy.ko"
    assert read_module(directory, path) == b"dummy"
    with pytest.raises(LabError, match="no module 'later': it is not built in, and not among the 1 modules"):
        index.load_order(["later"])
    # The tree is only read.
    assert sorted(os.listdir(tree)) == ["drivers", "modules.builtin", "modules.order"]


@pytest.mark.parametrize(
    ("order", "file"),
    [
        ("drivers/net/dummy.ko\n", "drivers/net/dummy.ko"),
        ("kernel/drivers/net/dummy.ko\n", "drivers/net/dummy.ko"),
        ("kernel/time/test.o\n", "kernel/time/test.ko"),
    ],
)
def test_order_may_be_of_any_release(tree: Path, order: str, file: str) -> None:
    (tree / "modules.order").write_text(order)
    (tree / file).parent.mkdir(parents=True, exist_ok=True)
    (tree / file).touch()
    _, index = load_index("6", modules_in_place(tree, "6"))
    assert [path for path, _ in index.needs.values()] == [f"kernel/{file}"]


def test_directory_is_made_anew_when_the_tree_has_changed(tree: Path) -> None:
    first = modules_in_place(tree, "6")
    assert modules_in_place(tree, "6") == first
    assert runs(tree) == 1
    (tree / "fs").mkdir()
    (tree / "fs/later.ko").touch()
    second = modules_in_place(tree, "6")
    assert len(load_index("6", second)[1].needs) == 2
    changed = tree / "fs/later.ko"
    changed.write_bytes(b"longer")
    third = modules_in_place(tree, "6")
    os.utime(changed, (time.time() + 10,) * 2)
    fourth = modules_in_place(tree, "6")
    assert len({first, second, third, fourth, modules_in_place(tree, "7")}) == 5
    # What is no longer asked for is gone.
    assert os.listdir(tree.parent / "cache/umlab/modules") == [
        modules_in_place(tree, "7").split("/")[-4],
    ]


def test_trees_do_not_meet(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first, second = modules_in_place(tree, "6"), modules_in_place(other, "6")
    assert os.path.isdir(first)
    assert os.path.isdir(second)
    assert runs(tree) == 1


def test_kernel_without_modules_has_what_is_built_in_and_needs_no_depmod(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_tree, "program_path", lambda: "/nowhere")
    (tree / "modules.order").unlink()
    _, index = load_index("6", modules_in_place(tree, "6"))
    assert index.load_order(["overlay"]) == []
    with pytest.raises(LabError, match="no module 'dummy'"):
        index.load_order(["dummy"])


def test_two_at_once_make_one(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_depmod = kernel_tree._run_depmod

    def overtaken(base: Path, release: str) -> None:
        monkeypatch.setattr(kernel_tree, "_run_depmod", run_depmod)
        modules_in_place(tree, "6")
        run_depmod(base, release)

    monkeypatch.setattr(kernel_tree, "_run_depmod", overtaken)
    assert load_index("6", modules_in_place(tree, "6"))[1].load_order(["dummy"])
    assert runs(tree) == 2
    assert len(os.listdir(tree.parent / "cache/umlab/modules")) == 1


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'depmod: no memory' >&2; exit 1", "failed: depmod: no memory"),
        ("exec sleep 600", "does not end within 0.2 seconds"),
        (None, "install the package kmod"),
    ],
)
def test_depmod_that_fails_leaves_nothing(
    tree: Path, monkeypatch: pytest.MonkeyPatch, script: str | None, words: str
) -> None:
    if script is None:
        monkeypatch.setattr(kernel_tree, "program_path", lambda: "/nowhere")
    else:
        (tree.parent / "bin/depmod").write_text(f"#!/bin/sh\n{script}\n")
        monkeypatch.setattr(kernel_tree, "_DEPMOD_TIMEOUT", 0.2 if "sleep" in script else 60)
    with pytest.raises(LabError, match=words):
        modules_in_place(tree, "6")
    assert os.listdir(tree.parent / "cache/umlab/modules") == []


@pytest.mark.parametrize(
    "order",
    [b"/etc/a.ko\n", b"../a.o\n", b"a/../../b.o\n", b"a.c\n", b".ko\n", b"a b.o\n", b"a\0.o\n", b"\xff\n"],
)
def test_list_that_is_none_is_refused(tree: Path, order: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"modules\.order has"):
        parse_order(b"drivers/a.o\n" + order)
    (tree / "modules.order").write_bytes(order)
    with pytest.raises(RemoteProtocolError):
        modules_in_place(tree, "6")


def test_list_that_cannot_be_read_is_told(tree: Path) -> None:
    (tree / "modules.order").unlink()
    (tree / "modules.order").mkdir()
    with pytest.raises(LabError, match=r"cannot read .*/modules\.order: Is a directory"):
        modules_in_place(tree, "6")
