"""Kernel modules: the closure in load order, and lists that are not what depmod writes."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from umlab.errors import LabError, RemoteProtocolError
from umlab.guest.kernel import module
from umlab.guest.kernel.module import load_index, parse_modules, read_module

DEP = (
    b"""kernel/net/llc/llc.ko:
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/802/mrp.ko:
kernel/net/802/garp.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/net/8021q/8021q.ko: %s kernel/net/llc/llc.ko
kernel/net/virtio-net.ko.xz:
"""
    % b"kernel/net/802/garp.ko kernel/net/802/mrp.ko kernel/net/802/stp.ko"
)
BUILTIN = b"kernel/fs/ext4/ext4.ko\nkernel/crypto/crc32c-generic.ko\n"


def test_closure_comes_before_what_needs_it() -> None:
    order = [path.rpartition("/")[2] for path in parse_modules(DEP, BUILTIN).load_order(["8021q"])]
    assert order == ["llc.ko", "stp.ko", "mrp.ko", "garp.ko", "8021q.ko"]


def test_shared_dependency_is_loaded_once() -> None:
    order = parse_modules(DEP, b"").load_order(["garp", "8021q", "garp"])
    assert len(order) == len(set(order)) == 5


def test_dash_and_underscore_are_the_same() -> None:
    index = parse_modules(DEP, BUILTIN)
    assert (
        index.load_order(["virtio_net"])
        == index.load_order(["virtio-net"])
        == ["kernel/net/virtio-net.ko.xz"]
    )


def test_builtin_needs_no_file() -> None:
    assert parse_modules(DEP, BUILTIN).load_order(["ext4", "crc32c_generic"]) == []


def test_missing_module_is_named() -> None:
    with pytest.raises(LabError, match="no_such"):
        parse_modules(DEP, BUILTIN).load_order(["stp", "no_such"])


@pytest.mark.parametrize(
    "dep",
    [
        b"kernel/a.ko\n",
        b"/etc/a.ko:\n",
        b"../a.ko:\n",
        b"kernel/a.ko: ../../etc/shadow.ko\n",
        b"kernel/a.txt:\n",
        b"kernel/.ko:\n",
        b"kernel/\xff.ko:\n",
        b"kernel/a\x1b.ko:\n",
    ],
)
def test_broken_list_is_refused(dep: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_modules(dep, b"")


def test_index_is_read_from_the_release_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1.2").mkdir()
    (tmp_path / "1.2/modules.dep").write_bytes(DEP)
    (tmp_path / "1.2/modules.builtin").write_bytes(BUILTIN)
    monkeypatch.setattr(module, "MODULES_ROOT", str(tmp_path))
    where, index = load_index("1.2")
    assert where == str(tmp_path / "1.2")
    assert "8021q" in index.needs


def test_kernel_without_modules_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"kernel 9\.9.*modules\.dep"):
        load_index("9.9", str(tmp_path))


def test_module_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.ko").write_bytes(b"plain")
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"packed"))
    assert read_module(str(tmp_path), "a.ko") == b"plain"
    assert read_module(str(tmp_path), "b.ko.xz") == b"packed"


@pytest.mark.parametrize("content", [b"", b"no xz at all", lzma.compress(b"x" * 1000)[:-20]])
def test_broken_module_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "b.ko.xz").write_bytes(content)
    with pytest.raises(LabError, match=r"b\.ko\.xz"):
        read_module(str(tmp_path), "b.ko.xz")


def test_missing_module_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"gone\.ko"):
        read_module(str(tmp_path), "gone.ko")


def test_module_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MODULE", 100)
    (tmp_path / "b.ko.xz").write_bytes(lzma.compress(b"x" * 101))
    with pytest.raises(LabError, match="more than 100"):
        read_module(str(tmp_path), "b.ko.xz")
