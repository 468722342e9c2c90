"""Kernels where they were built, and one that is built: their modules are loaded by a guest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from integration.peers.lan import shell
from integration.peers.uml_kernel import debian_kernel, running_guest
from support.require import require_program, unavailable
from umlab.guest.cmdline import HostRoot, TinyRoot
from umlab.guest.kernel.build import BuildOrder, build_kernel
from umlab.guest.kernel.config import features_of, read_kernel_config, transports_of
from umlab.guest.kernel.module import load_index
from umlab.guest.kernel.source import find_source
from umlab.guest.kernel.store import find_kernel

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

#: What loading 8021q loads, and what the host's files lie below.
WANTED = ("8021q", "garp", "mrp", "stp", "llc", "overlay")


@pytest.fixture
def places(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have a store and a cache of our own."""
    for variable in ("XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(variable, str(short_dir / variable))
    return short_dir


@pytest.fixture
def tree(places: Path) -> Path:
    """Return a tree as Debian's kernel was built in, of which six modules are left."""
    kernel = find_kernel(debian_kernel())
    assert kernel.modules_directory is not None
    installed = Path(kernel.modules_directory)
    tree = places / "tree"
    tree.mkdir()
    (tree / "linux").symlink_to(kernel.path)
    (tree / ".config").write_text("CONFIG_UML=y\nCONFIG_MODULES=y\n")
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        (tree / name).symlink_to(installed / name)
    for path, _ in load_index(kernel.release, kernel.modules_directory)[1].needs.values():
        if os.path.basename(path).removesuffix(".ko") in WANTED:
            file = tree / path.removeprefix("kernel/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.symlink_to(installed / path)
    return tree


async def test_guest_of_a_tree_loads_modules_that_nobody_installed(tree: Path) -> None:
    require_program("modprobe")
    kernel = find_kernel(str(tree))
    assert kernel.modules_directory is not None
    _, index = load_index(kernel.release, kernel.modules_directory)
    assert set(index.needs) == set(WANTED)
    assert len(index.load_order(WANTED)) == len(WANTED)
    # As of a lab file, which names the kernel alone.
    async with running_guest(tree.parent, kernel=kernel.path, root=HostRoot()) as guest:
        await shell(guest, "modprobe 8021q")
        loaded = {line.split()[0] for line in (await shell(guest, "cat /proc/modules")).splitlines()}
    assert loaded == set(WANTED)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_kernel_is_built_and_has_all_that_umlab_needs(places: Path) -> None:
    source = "linux-source-6.12"
    if not os.path.exists(f"/usr/src/{source}.tar.xz"):
        unavailable(f"there is no kernel source: apt-get install {source}")
    stages: list[str] = []
    built = await build_kernel(
        BuildOrder(find_source(source), "built", {"CONFIG_DUMMY": "m"}), lambda stage, _: stages.append(stage)
    )
    assert built.not_taken == {}
    assert built.objects is None
    assert [stage.split()[0] for stage in dict.fromkeys(stages)] == [
        *("unpacking", "configuring", "compiling", "installing")
    ]
    config = read_kernel_config(built.kernel.path)
    assert {each.kind for each in transports_of(config) if each.missing} == {"vde"}
    assert {each.kind for each in features_of(config) if each.missing} == {"gcov"}
    async with running_guest(
        places,
        kernel=built.kernel.path,
        modules_directory=built.kernel.modules_directory,
        root=TinyRoot(modules=("dummy", "overlay")),
    ) as guest:
        assert (await shell(guest, "uname -r")).strip() == built.kernel.release
        assert (await shell(guest, "cat /proc/modules")).startswith("dummy ")
        assert "overlay" in await shell(guest, "cat /proc/filesystems")
