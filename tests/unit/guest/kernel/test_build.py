"""Building a kernel, with a make that does in a blink what it is told: fail, hang, or leave something out."""

from __future__ import annotations

import asyncio
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from support.deadline import scaled, wait_until_async
from support.fake_make import RELEASE, FakeMake, is_alive, pid_in
from umlab.errors import LabError
from umlab.guest.kernel.build import BuildOrder, Built, build_kernel, remove
from umlab.guest.kernel.config import parse_config
from umlab.guest.kernel.option import wanted_options
from umlab.guest.kernel.source import find_source
from umlab.guest.kernel.store import find_kernel, kernel_names


@pytest.fixture
def fake(short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMake:
    return FakeMake(short_dir, monkeypatch)


def order(fake: FakeMake, source: Path | None = None, **fields: Any) -> BuildOrder:
    """Return an order for a kernel of the fake tree."""
    return BuildOrder(find_source(str(source or fake.tree)), "mine", **fields)


async def build(order: BuildOrder) -> Built:
    return await build_kernel(order, lambda stage, objects: None)


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def archive_of(fake: FakeMake) -> Path:
    path = fake.folder / "linux-6.12.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(fake.tree, "linux-6.12")
    return path


async def test_kernel_of_a_tree_is_in_the_store_and_the_tree_is_as_it_was(fake: FakeMake) -> None:
    before = listing(fake.tree)
    seen: list[tuple[str, int]] = []
    built = await build_kernel(order(fake, jobs=3), lambda stage, objects: seen.append((stage, objects)))
    assert built.kernel == find_kernel("mine")
    assert built.kernel.release == RELEASE
    assert built.kernel.modules_directory == f"{fake.store}/mine/modules/lib/modules/{RELEASE}"
    assert Path(built.kernel.path).read_text().endswith("stripped\n")
    assert "init/main.o" in Path(built.log).read_text()
    config = parse_config((fake.store / "mine/config").read_bytes())
    assert config == {"CONFIG_UML": "y", "CONFIG_MODULES": "n"} | wanted_options()
    assert built.not_taken == {}
    assert listing(fake.tree) == before
    assert [line for line in fake.asked if "-j3 linux" in line and "modules" not in line]
    assert seen[0] == ("configuring", 0)
    # Linking is no object.
    assert seen[-2] == ("compiling", 2)
    # The next build compiles what has changed.
    assert built.objects == str(fake.cache / "mine/objects")
    assert built.source == str(fake.tree)


async def test_of_an_archive_nothing_is_kept_but_the_kernel(fake: FakeMake) -> None:
    built = await build(order(fake, source=archive_of(fake)))
    assert (built.objects, built.source) == (None, None)
    assert not (fake.cache / "mine").exists()
    assert kernel_names() == ["mine"]


@pytest.mark.parametrize("field", ["debug", "gcov"])
async def test_symbols_are_kept_with_all_that_they_tell_of(fake: FakeMake, field: str) -> None:
    built = await build(order(fake, source=archive_of(fake), **{field: True}))
    assert "stripped" not in Path(built.kernel.path).read_text()
    assert Path(built.source or "", "Makefile").exists()
    assert Path(built.objects or "", "linux").exists()
    config = parse_config((fake.store / "mine/config").read_bytes())
    assert (config["CONFIG_FRAME_POINTER"], config.get("CONFIG_GCOV")) == (
        "y",
        "y" if field == "gcov" else None,
    )
    flags = [line for line in fake.asked if "-Dmangle_path=" in line]
    assert len(flags) == (1 if field == "gcov" else 0)
    assert all(f"-include {built.objects}/umlab-gcov.h " in line for line in flags)
    assert Path(built.objects or "", "umlab-gcov.h").exists() is (field == "gcov")
    remove("mine")
    assert listing(fake.store) == set()
    assert not (fake.cache / "mine").exists()


async def test_modules_are_installed_without_links_to_the_tree(fake: FakeMake) -> None:
    fake.behave(modules="y")
    built = await build(order(fake))
    assert any(line.endswith("INSTALL_MOD_STRIP=1 modules_install") for line in fake.asked)
    assert sorted(os.listdir(built.kernel.modules_directory)) == ["kernel", "modules.dep"]
    await build(order(fake, debug=True))
    assert "INSTALL_MOD_STRIP" not in fake.asked[-1]


async def test_options_that_were_not_taken_are_told(fake: FakeMake) -> None:
    fake.behave(dropped="CONFIG_UML_NET_DAEMON|CONFIG_MINE")
    built = await build(order(fake, options={"CONFIG_MINE": "m", "CONFIG_IPV6": "n"}))
    assert built.not_taken == {"CONFIG_UML_NET_DAEMON": "n", "CONFIG_MINE": "n"}
    assert parse_config((fake.store / "mine/config").read_bytes())["CONFIG_IPV6"] == "n"


@pytest.mark.parametrize(
    ("then", "words"),
    [
        (
            "echo 'fs/a.c:3:1: error: no such thing' >&2; echo '*** [fs/a.o] Error 1'; exit 2",
            r"failed: fs/a\.c:3:1: error: no such thing; the whole log is .*/mine/build\.log",
        ),
        ("echo 'as: No space left on device'; exit 2", "No space left on device"),
        ("echo \"make: *** No rule to make target 'x'.  Stop.\"; exit 2", "No rule to make"),
        ("exit 7", "failed: make ended with status 7"),
        ("kill -KILL $$", "failed: make ended with status -9"),
        ('printf "#!/bin/sh\\nexit 1\\n" >"$FAKE/kernel"', "not know --version"),
        ('echo text >"$FAKE/kernel"', "no program at all"),
    ],
)
async def test_failed_build_leaves_the_kernel_that_there_was(fake: FakeMake, then: str, words: str) -> None:
    await build(order(fake))
    before = listing(fake.store)
    fake.behave(then=then)
    with pytest.raises(LabError, match=words):
        await build(order(fake))
    assert listing(fake.store) == before
    assert find_kernel("mine").release == RELEASE


async def test_cancelled_build_ends_all_that_it_has_started_and_the_next_one_goes_on(fake: FakeMake) -> None:
    source = archive_of(fake)
    child = fake.folder / "child"
    # It says itself that it runs: before that, a child of a shell would miss a signal that the shell traps.
    fake.behave(then="sh -c \"trap : TERM; sh -c 'echo \\$\\$ >$FAKE/child; exec sleep 600' & wait\"; wait")
    task = asyncio.ensure_future(build(order(fake, source=source)))
    await wait_until_async(lambda: pid_in(child), 10, "make has started something")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, scaled(20))
    await wait_until_async(lambda: not is_alive(pid_in(child)), 10, "it has ended")
    assert kernel_names() == []
    marker = fake.cache / "mine/objects/made-before"
    marker.touch()
    fake.behave(then="ls made-before || exit 2")
    await build(order(fake, source=source))
    fake.behave(then="ls made-before || exit 2")
    with pytest.raises(LabError, match="cannot access 'made-before'"):
        await build(order(fake, source=source))


async def test_build_that_is_cancelled_while_a_program_starts_ends_that_as_well(
    fake: FakeMake, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, child, cancelled = asyncio.create_subprocess_exec, fake.folder / "child", asyncio.Event()

    async def start_slowly(*words: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*words, **options)
        if "linux" in words:
            await cancelled.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_slowly)
    fake.behave(then='sh -c "echo \\$\\$ >$FAKE/child.new; mv $FAKE/child.new $FAKE/child; sleep 600"')
    task = asyncio.ensure_future(build(order(fake)))
    await wait_until_async(lambda: pid_in(child), 10, "make has started something")
    task.cancel()
    cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, scaled(20))
    await wait_until_async(lambda: not is_alive(pid_in(child)), 10, "it has ended")


async def test_objects_of_another_source_are_not_used(fake: FakeMake) -> None:
    await build(order(fake))
    (fake.cache / "mine/objects/old.o").touch()
    await build(order(fake))
    assert (fake.cache / "mine/objects/old.o").exists()
    await build(order(fake, source=archive_of(fake), debug=True))
    assert not (fake.cache / "mine/objects/old.o").exists()


async def test_one_name_is_built_once_at_a_time(fake: FakeMake) -> None:
    fake.behave(then='echo $$ >"$FAKE/child"; sleep 600')
    task = asyncio.ensure_future(build(order(fake)))
    await wait_until_async(lambda: pid_in(fake.folder / "child"), 10, "it compiles")
    with pytest.raises(LabError, match="mine is being built already"):
        await build(order(fake))
    with pytest.raises(LabError, match="mine is being built already"):
        remove("mine")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, scaled(20))


async def test_orders_to_other_builds_do_not_reach_this_one(
    fake: FakeMake, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAKEFLAGS", "ARCH", "O", "KBUILD_OUTPUT", "INSTALL_MOD_PATH", "CCACHE_DIR"):
        monkeypatch.setenv(name, "x")
    await build(order(fake))
    assert fake.environment & {"MAKEFLAGS", "ARCH", "O", "KBUILD_OUTPUT", "INSTALL_MOD_PATH"} == set()
    assert "CCACHE_DIR" in fake.environment


async def test_cache_that_cannot_be_written_is_told(fake: FakeMake) -> None:
    fake.cache.mkdir(parents=True)
    (fake.cache / "mine").touch()
    with pytest.raises(LabError, match=r"building the kernel mine failed: .*/mine.*: "):
        await build(order(fake))


def test_what_a_failed_build_has_left_is_removed(fake: FakeMake) -> None:
    fake.behave(then="exit 1")
    with pytest.raises(LabError):
        asyncio.run(build(order(fake)))
    assert (fake.cache / "mine").exists()
    remove("mine")
    assert not (fake.cache / "mine").exists()
    with pytest.raises(LabError, match="there is no kernel 'mine'"):
        remove("mine")
