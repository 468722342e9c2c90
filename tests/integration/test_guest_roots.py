"""Guests whose root is a disk, or the host's own files, as their agent sees them."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path

import pytest

from integration.peers.uml_kernel import debian_kernel, running_guest, vector_kernel
from support.deadline import scaled, wait_until_async
from support.require import require_program
from umlab.daemon.guest import GuestService
from umlab.errors import GuestFailed
from umlab.guest import landlock
from umlab.guest.cmdline import DiskRoot, GuestSpec, HostRoot
from umlab.guest.inside.agent import Agent
from umlab.guest.inside.session import Request

pytestmark = pytest.mark.integration

LONG = scaled(60)
#: What a guest tries that wants to change the host: it makes files in the test's directory.
ESCAPES = """
exec 2>&1
mount -t hostfs -o {marker} none /mnt; echo a >/mnt/a
mkdir /tmp/host
mount -t hostfs -o / none /tmp/host -o rw; echo b >/tmp/host{marker}/b; mkdir /tmp/host{marker}/c
mount -o remount,rw /tmp/host; rm /tmp/host{marker}/old; echo d >/tmp/host{marker}/old
rm -f {marker}/old; echo mine >{marker}/e
chmod 4755 /mnt/kept; chmod 700 /tmp/host{marker}/kept; touch -d 2001-01-01 /mnt/kept
chmod 6755 {shared}/file; chmod 711 {shared}/file; touch -d 2001-01-01 {shared}/file
"""


def make_image(folder: Path, *, init: str | None) -> Path:
    """Make an ext4 image with busybox and perhaps a program for process 1; it has no shell."""
    tree = folder / "tree"
    for name in ("bin", "dev", "proc", "sbin"):
        (tree / name).mkdir(parents=True)
    shutil.copy(require_program("busybox"), tree / "bin/busybox")
    if init is not None:
        (tree / "sbin/init").write_text(f"#!/bin/busybox sh\n{init}\n")
        (tree / "sbin/init").chmod(0o755)
    image = folder / "image"
    words = [require_program("mke2fs"), "-q", "-t", "ext4", "-d", tree, image, "16M"]
    subprocess.run(words, check=True, capture_output=True)
    return image


async def be_late(agent: Agent) -> None:
    """Signal commands that have just ended: what comes too late does nothing to those that follow."""
    for _ in range(5):
        session = await agent.open(Request("exit 3"))
        session.signal("KILL")
        assert await session.wait() in (3, 137)
        await wait_until_async(lambda: session.hearing._deadline() is None, 20, "the signal is heard")
        agent.release(session)
        assert (await agent.run("echo on", LONG)).stdout == b"on\n"


async def test_agent_works_in_a_disk_before_and_after_its_own_init_runs(short_dir: Path) -> None:
    init = (
        "while [ ! -e /go ]; do /bin/busybox sleep 0.1; done\n"
        "echo own init runs\n"
        "while :; do /bin/busybox sleep 9; done"
    )
    root = DiskRoot(str(make_image(short_dir / "disk", init=init)))
    async with running_guest(short_dir, root=root) as guest:
        await be_late(guest.guest.agent)
        # There is no /bin/sh, nor anything else that the agent could need.
        result = await guest.run("readlink /proc/$$/exe; pwd; echo >/go", LONG)
        assert result.stdout == b"/run/umlab/busybox\n/run/umlab\n"
        async with asyncio.timeout(LONG):
            await guest.guest.console.wait_for(b"own init runs")
        assert "there is no /bin/sh in this root" in guest.guest.console.text
        result = await guest.run("cat /proc/1/comm /proc/mounts", LONG)
        assert result.stdout.startswith(b"init\n")
        assert b" / ext4 " in result.stdout


@pytest.mark.parametrize("damage", ["no init", "no file system"])
async def test_disk_that_cannot_be_booted_says_why(short_dir: Path, damage: str) -> None:
    image = make_image(short_dir / "disk", init=None)
    if damage == "no file system":
        image.write_bytes(os.urandom(1 << 20))
    spec = GuestSpec("guest", debian_kernel(), root=DiskRoot(str(image)))
    async with await GuestService.start(spec, str(short_dir)) as guest:
        with pytest.raises(GuestFailed) as caught:
            await guest.ready(LONG)
    said = {
        "no init": "umlab: there is no /sbin/init in this root",
        "no file system": "umlab: cannot mount the disk",
    }
    assert said[damage] in caught.value.console_tail
    assert caught.value.status is not None


@pytest.mark.parametrize(
    "means",
    [
        "none",
        "landlock",
        pytest.param("mounts", marks=pytest.mark.needs_root),
    ],
)
async def test_host_root_has_all_programs_and_changes_nothing_but_what_is_shared(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, means: str
) -> None:
    """Without anything that contains it, the same guest does change what is not its own."""
    if means == "mounts":
        monkeypatch.setattr(landlock, "abi", lambda: 0)
    shared, marker = short_dir / "shared", short_dir / "marker"
    for folder in (shared, marker):
        folder.mkdir()
    for name in ("old", "kept"):
        (marker / name).write_text(name)
        (marker / name).chmod(0o644)
    kept = (marker / "kept").stat()
    root = HostRoot(shared=(str(shared),))
    async with running_guest(short_dir, root=root, landlock=means != "none") as guest:
        script = f"""
            set -e
            script -qc tty /dev/null
            echo x >/tmp/umlab-x; echo x >/dev/shm/umlab-x; echo x >/etc/umlab-x; cat /etc/umlab-x
            echo from the guest >{shared}/file
            stat -f -c %T {shared} /
            bash -c 'echo <(true)' >/dev/null
            python3 -c 'import os, pty; pty.openpty(); print(os.getuid())'
        """
        result = await guest.run(script, LONG)
        assert (result.stdout.split(), result.status) == (
            [b"/dev/pts/0", b"x", b"hostfs", b"overlayfs", b"0"],
            0,
        ), result
        escapes = await guest.run(ESCAPES.format(marker=marker, shared=shared), LONG)
    assert (shared / "file").read_text() == "from the guest\n"
    status = (shared / "file").stat()
    # What it may do there, but for a program that would run as us.
    assert (stat.S_IMODE(status.st_mode), time.gmtime(status.st_mtime).tm_year) == (0o711, 2001), escapes
    now = (marker / "kept").stat()
    if means == "none":
        assert sorted(os.listdir(marker)) == ["a", "b", "c", "kept", "old"], escapes
    else:
        assert sorted(os.listdir(marker)) == ["kept", "old"], escapes
        assert (marker / "old").read_text() == "old"
    if means == "none" or (os.geteuid() != 0 and means == "landlock"):
        # Where a user's guest may set modes and times at all, nothing keeps it from its user's other files.
        assert (stat.S_IMODE(now.st_mode), time.gmtime(now.st_mtime).tm_year) == (0o700, 2001), escapes
    else:
        assert (now.st_mode, now.st_mtime_ns) == (kept.st_mode, kept.st_mtime_ns), escapes
    assert not Path("/etc/umlab-x").exists()


@pytest.mark.slow
@pytest.mark.skipif(vector_kernel() is None, reason="there is no kernel 6.12")
async def test_host_root_of_a_kernel_with_the_new_mount_interface(short_dir: Path) -> None:
    shared = short_dir / "shared"
    shared.mkdir()
    root = HostRoot(shared=(str(shared),))
    async with running_guest(short_dir, root=root, kernel=str(vector_kernel())) as guest:
        result = await guest.run(
            f"echo x >{shared}/file && stat -f -c %T / {shared} && echo >/etc/umlab-x", LONG
        )
    assert (result.stdout, result.status) == (b"overlayfs\nhostfs\n", 0)
    assert (shared / "file").read_text() == "x\n"
