"""COW files under a real kernel: every version mounted and written to, and what we make of it the same."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from integration.peers.uml_kernel import running_guest
from support.cow_files import KINDS, SECTOR, write_cow
from support.deadline import scaled
from support.require import require_program
from umlab.daemon.guest import GuestService
from umlab.errors import CommandTimeout, GuestFailed, LabError
from umlab.guest.disk.cow import create_cow, rebase_cow
from umlab.guest.disk.cow_check import cow_facts, cow_problems
from umlab.guest.disk.cow_merge import merge_cow, merge_in_place

pytestmark = [pytest.mark.integration, pytest.mark.any_user, pytest.mark.asyncio(loop_scope="module")]

#: No whole number of sectors.
SIZE = (4 << 20) + 100
#: Bytes of a block of the file system, and of a page of the kernel.
BLOCK = 4096
#: A file that is written by us into each COW file: it lies in one block of the image.
MARK = b"written into the COW file".ljust(BLOCK, b".")
#: The disks in the order of their devices, the first one ubdb: every kind, and one of our own making.
DISKS = (*KINDS, "made")
#: The largest backing file that kernels cannot write above, and the smallest that they can.
TOO_SMALL, LEAST = 64 * SECTOR, 65 * SECTOR


@dataclass
class Seen:
    """What a guest saw, and what we saw of it meanwhile.

    Attributes:
        folder: Where the disks are.
        found: What was in the file of each disk.
        sums: SHA-256 of each device at the end.
        used_by: Who runs on each disk, as :func:`cow_facts` says while it is mounted.
        refusals: What a merge of each said meanwhile.
        messages: The kernel's.
        writes: Sizes of the small disks that could be written to.
    """

    folder: Path
    found: dict[str, bytes] = field(default_factory=dict)
    sums: dict[str, str] = field(default_factory=dict)
    used_by: dict[str, str | None] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    messages: str = ""
    writes: list[int] = field(default_factory=list)

    def cow(self, name: str) -> str:
        """Return the path of a disk's COW file."""
        return str(self.folder / f"{name}.cow")


def make_disks(folder: Path) -> None:
    """Make a file system, COW files of it, small disks, and one whose image was changed."""
    image, content = folder / "image", folder / "content"
    content.mkdir()
    (content / "file").write_bytes(b"of the image".ljust(BLOCK, b"."))
    command = [require_program("mke2fs"), "-q", "-t", "ext2", "-b", f"{BLOCK}", "-d", content, image, "4M"]
    subprocess.run(command, check=True, capture_output=True)
    with image.open("r+b") as file:
        at = file.read().index(b"of the image")
        file.truncate(SIZE)
    assert at % BLOCK == 0
    os.utime(image, (7, 7))
    mark = {(at + n) // SECTOR: MARK[n : n + SECTOR] for n in range(0, BLOCK, SECTOR)}
    for kind in KINDS:
        write_cow(folder / f"{kind}.cow", kind, image, mark)
    write_cow(folder / "mixed.cow", "v3", image, {9: MARK[:SECTOR]})
    # One of ours, that was made somewhere else.
    shutil.copyfile(image, folder / "elsewhere")
    create_cow(str(folder / "made.cow"), str(folder / "elsewhere"))
    os.utime(folder / "elsewhere", (8, 8))
    (folder / "elsewhere").unlink()
    assert rebase_cow(str(folder / "made.cow"), str(image), unsafe=True)
    for size in (TOO_SMALL, LEAST):
        (folder / f"{size}").write_bytes(bytes(size))
        create_cow(str(folder / f"{size}.cow"), str(folder / f"{size}"), strict=False)
    (folder / "changed").write_bytes(bytes(SIZE))
    write_cow(folder / "changed.cow", "v3", folder / "changed", {})
    os.utime(folder / "changed", (9, 9))


async def look(guest: GuestService, seen: Seen) -> None:
    """Use each disk in the guest, and look at it from here meanwhile."""

    async def run(command: str) -> bytes:
        result = await guest.run(command, scaled(30))
        assert result.status == 0, result
        return result.stdout

    await run("mkdir -p /m")
    for number, name in enumerate(DISKS):
        device, cow = f"/dev/ubd{'bcdefg'[number]}", seen.cow(name)
        seen.found[name] = await run(f"mount -t ext2 {device} /m && cat /m/file")
        await run("head -c 100000 /dev/urandom >/m/new && sync")
        seen.used_by[name] = cow_facts(cow).used_by
        for target in (f"{seen.folder}/none", None):
            with pytest.raises(LabError) as refused:
                merge_in_place(cow) if target is None else merge_cow(cow, target)
            seen.refusals[name] = str(refused.value)
        await run("umount /m")
        # The device ends with a whole sector. The bitmap of the old versions has no bit for that.
        if name not in ("v1", "v2"):
            await run(
                f"yes tail | head -c {SECTOR} | dd of={device} bs={SECTOR} seek={SIZE // SECTOR} conv=notrunc"
            )
        await run("sync; echo 3 >/proc/sys/vm/drop_caches")
        seen.sums[name] = (await run(f"sha256sum {device}")).decode().split()[0]
    seen.sums["mixed"] = (await run("sha256sum /dev/ubdj")).decode().split()[0]
    seen.messages = (await run("dmesg")).decode()
    for size, device in ((LEAST, "ubdg"), (TOO_SMALL, "ubdh")):
        try:
            await guest.run(f"head -c {SECTOR} /dev/zero | dd of=/dev/{device} conv=notrunc; sync", scaled(1))
            seen.writes.append(size)
        except (CommandTimeout, GuestFailed):
            break


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def seen() -> AsyncIterator[Seen]:
    base = Path(tempfile.mkdtemp(prefix="uml"))
    folder = base / "d"
    folder.mkdir()
    make_disks(folder)
    found = Seen(folder)
    names = [*DISKS, str(LEAST), str(TOO_SMALL), "changed", "mixed"]
    extra = tuple(f"ubd{number}={found.cow(name)}" for number, name in enumerate(names, 1))
    async with running_guest(base, "cows", extra=extra, writable=(str(folder),)) as guest:
        await look(guest, found)
        # It hangs, or is dead.
        await guest.guest.stop()
    yield found
    shutil.rmtree(base)


async def test_every_version_is_mounted_as_it_was_written(seen: Seen) -> None:
    assert {name: data for name, data in seen.found.items() if name != "made"} == dict.fromkeys(KINDS, MARK)
    assert seen.found["made"] == b"of the image".ljust(BLOCK, b".")


async def test_disk_that_is_mounted_is_in_use_and_not_merged(seen: Seen) -> None:
    for name in DISKS:
        assert str(seen.used_by[name]).startswith("guest cows, process ")
        assert seen.refusals[name] == f"{seen.cow(name)} is in use by {seen.used_by[name]}; stop that first"
        assert cow_facts(seen.cow(name)).used_by is None
    assert not (seen.folder / "none").exists()


@pytest.mark.parametrize("name", DISKS)
async def test_image_is_what_the_guest_saw(seen: Seen, name: str) -> None:
    new = seen.folder / f"{name}.new"
    size = merge_cow(seen.cow(name), str(new))
    data = new.read_bytes()
    assert len(data) == size == (SIZE if name in ("v1", "v2") else SIZE // SECTOR * SECTOR + SECTOR)
    assert hashlib.sha256(data.ljust(SIZE // SECTOR * SECTOR + SECTOR, b"\0")).hexdigest() == seen.sums[name]
    facts = cow_facts(seen.cow(name))
    # The new file, the bitmaps and inodes of ext2; and far from everything.
    assert 100_000 < facts.changed * SECTOR < SIZE // 4
    assert facts.on_disk < SIZE // 4
    problems = [problem.problem for problem in cow_problems(seen.cow(name))]
    assert len(problems) == (name in ("v1", "v2")), problems


async def test_file_system_of_the_image_is_whole(seen: Seen) -> None:
    check = require_program("mke2fs").with_name("e2fsck")
    for name in DISKS:
        merge_cow(seen.cow(name), str(seen.folder / "fs"), replace=True)
        subprocess.run([check, "-fn", seen.folder / "fs"], check=True, capture_output=True)


async def test_original_merges_to_the_same_but_for_the_tail(seen: Seen) -> None:
    for name in DISKS:
        ours, theirs = seen.folder / "ours", seen.folder / "theirs"
        merge_cow(seen.cow(name), str(ours), replace=True)
        subprocess.run([require_program("uml_moo"), seen.cow(name), theirs], check=True, capture_output=True)
        assert theirs.read_bytes() == ours.read_bytes()[: SIZE // SECTOR * SECTOR]


async def test_kernel_says_what_we_say_of_a_changed_image(seen: Seen) -> None:
    (problem,) = cow_problems(seen.cow("changed"))
    words, _, _ = problem.problem.partition(' "')
    assert words in seen.messages


async def test_kernel_reads_wrong_behind_a_page_that_is_changed_in_part(seen: Seen) -> None:
    new = seen.folder / "mixed.new"
    merge_cow(seen.cow("mixed"), str(new))
    image = bytearray((seen.folder / "image").read_bytes())
    image[9 * SECTOR : 10 * SECTOR] = MARK[:SECTOR]
    assert new.read_bytes() == image
    whole = bytes(image).ljust(SIZE // SECTOR * SECTOR + SECTOR, b"\0")
    assert hashlib.sha256(whole).hexdigest() != seen.sums["mixed"]
    (problem,) = cow_problems(seen.cow("mixed"))
    assert problem.problem.startswith("pages with changed sectors and others: 1;")


async def test_disk_that_is_too_small_hangs_the_kernel(seen: Seen) -> None:
    assert seen.writes == [LEAST]
    assert not any("too small" in problem.problem for problem in cow_problems(seen.cow(str(LEAST))))
    (problem,) = cow_problems(seen.cow(str(TOO_SMALL)))
    assert (
        problem.problem
        == f"a disk of {TOO_SMALL} bytes is too small: a kernel that writes to it panics or hangs"
    )
