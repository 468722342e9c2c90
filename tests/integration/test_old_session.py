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

from integration.peers.typed_guest import INIT, TypedGuest, typed_guest
from integration.peers.uml_mconsole import mconsole
from integration.peers.uml_switch import PROGRAMS, uml_switch
from support.require import require_program
from umlab.guest.process import HALT_STATUSES

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

_SIZE = "24M"


def make_image(directory: Path) -> Path:
    """Build an ext2 image with busybox and a shell as its init, as a plain user can."""
    tree = directory / "tree"
    for name in ("bin", "dev", "proc", "root", "sbin", "sys", "tmp"):
        (tree / name).mkdir(parents=True)
    busybox = require_program("busybox")
    shutil.copy(busybox, tree / "bin/busybox")
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in listed.stdout.split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    (tree / "sbin/init").write_text(INIT)
    (tree / "sbin/init").chmod(0o755)
    image = directory / "root.img"
    subprocess.run(
        [require_program("mke2fs"), "-q", "-t", "ext2", "-d", tree, image, _SIZE],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(tree)
    return image


def state(image: Path) -> tuple[str, int, int]:
    """Return what must stay as it is of a backing image: a COW file on it is bound to its time stamp."""
    return hashlib.sha256(image.read_bytes()).hexdigest(), image.stat().st_mtime_ns, image.stat().st_size


async def boot(stack: AsyncExitStack, home: Path, name: str, *nics: str) -> TypedGuest:
    """Start a guest on its COW file over the shared image, file names relative as they are typed."""
    number = {"left": 1, "right": 2}[name]
    disk = (f"ubd0=cow{number},root.img", "root=/dev/ubda", "rw")
    return await stack.enter_async_context(typed_guest(home, f"umid={name}", "mem=128M", *disk, *nics))


async def up(guest: TypedGuest, device: str, address: str) -> None:
    await guest.type(f"ip addr add {address}/24 dev {device} && ip link set {device} up")


async def ping(guest: TypedGuest, address: str) -> None:
    assert "3 packets transmitted, 3 packets received" in await guest.type(f"ping -A -c 3 -W 10 {address}")


@pytest.mark.parametrize("tools", PROGRAMS)
async def test_two_guests_over_one_image_on_two_switches(short_dir: Path, tools: str) -> None:
    """Left is on the first network and gets a card on the second one later; right is on both."""
    image = await asyncio.to_thread(make_image, short_dir)
    before = state(image)
    net1, net2 = (str(short_dir / name) for name in ("net1.ctl", "net2.ctl"))
    eth0, eth1 = f"eth0=daemon,,unix,{net1}", f"eth1=daemon,,unix,{net2}"
    async with AsyncExitStack() as stack:
        for control in (net1, net2):
            await stack.enter_async_context(
                uml_switch(tools, ["-unix", control], ready=[Path(control)], cwd=short_dir)
            )
        left = await boot(stack, short_dir, "left", eth0)
        right = await boot(stack, short_dir, "right", eth0, eth1)
        await up(left, "eth0", "10.0.1.1")
        await up(right, "eth0", "10.0.1.2")
        await up(right, "eth1", "10.0.2.2")
        await ping(left, "10.0.1.2")

        release = (await left.type("uname -r")).strip()
        assert release in await mconsole(tools, "left", "version", home=short_dir)
        assert await mconsole(tools, "right", "config", "ubd0", home=short_dir) == f"OK cow2,{image}\n"
        await mconsole(tools, "left", "config", eth1, home=short_dir)
        await up(left, "eth1", "10.0.2.1")
        await ping(left, "10.0.2.2")
        await ping(right, "10.0.2.1")
        await ping(right, "10.0.1.1")

        await left.type("echo of left >/root/mine && sync")
        assert "mine" not in await right.type("ls /root")
        await right.type("echo of right >/root/mine && sync")
        assert "of left" in await left.type("cat /root/mine")

        for name, guest in (("left", left), ("right", right)):
            await mconsole(tools, name, "halt", home=short_dir)
            assert await guest.wait() in HALT_STATUSES
        assert os.listdir(short_dir / ".uml") == []

        again = await boot(stack, short_dir, "left", eth0)
        assert "of left" in await again.type("cat /root/mine")
        await mconsole(tools, "left", "halt", home=short_dir)
        assert await again.wait() in HALT_STATUSES

    assert state(image) == before
    assert sorted(path.name for path in short_dir.iterdir()) == [".uml", "cow1", "cow2", "root.img"]
