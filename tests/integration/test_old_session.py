"""The session as it was always done by hand: copy-on-write disks over one shared image, two switches."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, ping, shell
from integration.peers.uml_kernel import running_guest
from integration.peers.uml_switch import PROGRAMS, uml_switch
from support.require import require_program
from umlab.guest import root as guest_root
from umlab.guest.cmdline import DaemonNic, DiskRoot

pytestmark = pytest.mark.integration

_SIZE = "24M"


def make_image(directory: Path) -> Path:
    """Build an ext2 image with busybox and the tiny root's scripts, as a plain user can."""
    tree = directory / "tree"
    for name in ("bin", "dev", "etc", "proc", "run", "sys", "tmp", "root", "sbin"):
        (tree / name).mkdir(parents=True)
    busybox = Path(guest_root.find_busybox())
    shutil.copy(busybox, tree / "bin/busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    scripts = Path(guest_root.__file__).parent
    for source, target in (("init.sh", "sbin/init"), ("agent.sh", "bin/umlab-agent")):
        shutil.copy(scripts / source, tree / target)
        (tree / target).chmod(0o755)
    (tree / "etc/hostname").write_text("disk\n")
    (tree / "etc/modules").write_text("")
    image = directory / "root.img"
    subprocess.run(
        [require_program("mke2fs"), "-q", "-t", "ext2", "-d", tree, image, _SIZE],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(tree)
    return image


@pytest.mark.parametrize("switch_is", PROGRAMS)
async def test_two_guests_over_one_image_on_two_switches(short_dir: Path, switch_is: str) -> None:
    image = await asyncio.to_thread(make_image, short_dir)
    before = (hashlib.sha256(image.read_bytes()).hexdigest(), image.stat().st_mtime_ns)
    controls = [short_dir / "net1.ctl", short_dir / "net2.ctl"]
    nics = tuple(DaemonNic(str(control)) for control in controls)
    async with AsyncExitStack() as stack:
        for control in controls:
            await stack.enter_async_context(uml_switch(switch_is, ["-unix", str(control)], ready=[control]))
        guests = []
        for number, name in enumerate(("left", "right"), 1):
            disk = DiskRoot(str(short_dir / f"{name}.cow"), str(image))
            guest = await stack.enter_async_context(
                running_guest(short_dir, name, root=disk, nics=nics, writable=(str(short_dir),))
            )
            await bring_up(guest, "eth0", f"10.0.1.{number}")
            await bring_up(guest, "eth1", f"10.0.2.{number}")
            guests.append(guest)
        left, right = guests

        await ping(left, "10.0.1.2")
        await ping(right, "10.0.2.1")
        await shell(left, "echo mine >/root/file && sync")

        assert "file" not in await shell(right, "ls /root")
        assert await shell(left, "cat /root/file") == "mine\n"

    assert (hashlib.sha256(image.read_bytes()).hexdigest(), image.stat().st_mtime_ns) == before
    assert os.listdir(short_dir).count("left.cow") == 1
