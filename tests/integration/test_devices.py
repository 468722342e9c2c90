"""Devices of a running kernel: plugged, seen and used inside the guest, and unplugged."""

from __future__ import annotations

import fcntl
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from integration.peers.lan import shell
from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled
from support.kept_lab import KeptLab
from support.real_keeper import RealKeeper
from support.require import require_program
from umlab.daemon.device_order import DeviceOrder, SwitchNic
from umlab.daemon.guest_device import GuestDevices
from umlab.daemon.view import DeviceView
from umlab.errors import LabError, MconsoleError, NoSuchDevice
from umlab.guest.cmdline import GuestSpec
from umlab.guest.device import Disk

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

IMAGE_SIZE = 1 << 20


class Plugged:
    """A lab of a switch and a guest that has nothing but what a test plugs in.

    Attributes:
        disks: A folder that the guest may write to.
        elsewhere: One that it may not write to.
    """

    def __init__(self, kept: KeptLab, directory: Path) -> None:
        self.kept = kept
        self.disks, self.elsewhere = directory / "d", directory / "e"
        for folder in (self.disks, self.elsewhere):
            folder.mkdir()

    @property
    def devices(self) -> GuestDevices:
        """The devices."""
        return self.kept.lab.devices

    async def run(self, command: str) -> str:
        """Run a command in the guest that must succeed, and return what it prints."""
        return await shell(self.kept.lab.guest_set.find("g").service, command)

    async def fails(self, command: str) -> str:
        """Run a command in the guest that must fail, and return what it prints."""
        result = await self.kept.lab.guest_set.find("g").service.run(command, scaled(30))
        assert result.status != 0, result
        return (result.stdout + result.stderr).decode()

    async def view(self, device: str) -> DeviceView:
        """Return a device."""
        return await self.devices.view("g", device)

    async def names(self) -> set[str]:
        """Return the names of what is plugged in."""
        return {view.name for view in await self.devices.views("g")} - {"con0", "con1", "ssl0", "mem"}

    def ports(self) -> list[tuple[int, str]]:
        """Return the number and the kind of each port."""
        return [(port.port_no, port.kind) for port in self.kept.lab.ports("lan")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guest() -> AsyncIterator[Plugged]:
    directory = Path(tempfile.mkdtemp(prefix="uml"))
    keeper = RealKeeper(directory)
    kept = KeptLab(keeper, directory)
    await kept.start()
    plugged = Plugged(kept, directory)
    runtime = kept.runtime
    await kept.lab.put_switch(kept.switch(f"daemon:{runtime}/c", f"bess:{runtime}/b"))
    await kept.lab.put_guest(GuestSpec("g", debian_kernel(), writable=(str(plugged.disks),)))
    try:
        await kept.lab.guest_set.find("g").service.ready(scaled(60))
        yield plugged
    finally:
        await kept.lab.stop()
        await keeper.end()
        shutil.rmtree(directory)


@pytest.fixture
def image(guest: Plugged) -> Iterator[Path]:
    """Yield an image of a file system that the guest may only read."""
    path = guest.elsewhere / "image"
    subprocess.run([require_program("mke2fs"), "-q", "-t", "ext2", path, "1M"], check=True)
    yield path
    path.unlink()


async def test_nics_are_seen_used_and_unplugged(guest: Plugged) -> None:
    eth = await guest.devices.add("g", DeviceOrder(nic=SwitchNic("lan", mac="02:00:00:00:00:01")))
    assert (eth.name, eth.kind, eth.switch, eth.port_no) == ("eth0", "nic", "lan", 1)
    vec = await guest.devices.add("g", DeviceOrder(nic=SwitchNic("lan", "bess", mtu=1400)))
    assert (vec.name, vec.switch) == ("vec0", None)
    assert "02:00:00:00:00:01" in await guest.run("ip link show eth0")
    # Another network namespace, so that what goes between the two goes through the switch.
    await guest.run(
        "unshare -n sh -c 'echo up >/tmp/up; exec sleep 1000' >/dev/null 2>&1 & echo $! >/tmp/pid; "
        "while ! [ -e /tmp/up ]; do :; done; ip link set vec0 netns $(cat /tmp/pid)"
    )
    inside = "nsenter -t $(cat /tmp/pid) -n"
    await guest.run(f"{inside} ip addr add 10.0.0.2/24 dev vec0; {inside} ip link set vec0 up")
    assert guest.ports() == [(1, "daemon"), (2, "bess")]
    await guest.run("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up")
    assert " 0% packet loss" in await guest.run("ping -A -c 3 -W 10 10.0.0.2")
    vec = await guest.view("vec0")
    assert (vec.switch, vec.port_no) == ("lan", 2)
    assert "mtu 1400" in await guest.run(f"{inside} ip link show vec0")

    with pytest.raises(MconsoleError, match=r"currently open \(EBUSY, -16\).*ip link set eth0 down"):
        await guest.devices.remove("g", "eth0")
    assert await guest.names() == {"eth0", "vec0"}
    assert await guest.devices.remove("g", "eth0", down=True)
    assert not await guest.devices.remove("g", "eth0")
    await guest.run(f"{inside} ip link set vec0 down; kill $(cat /tmp/pid)")
    assert await guest.devices.remove("g", "vec0")
    assert await guest.run("cd /sys/class/net && echo *") == "lo\n"
    assert guest.ports() == []
    assert await guest.names() == set()


@contextmanager
def hanging_up(path: Path) -> Iterator[None]:
    """Serve a socket that takes one connection and ends it at once."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        yield
        thread.join()
    path.unlink()


async def test_nic_without_a_switch_leaves_nothing(guest: Plugged) -> None:
    path = guest.disks / "c"
    with pytest.raises(LabError, match=f"guest g: eth0: nobody listens at {path}: No such file"):
        await guest.devices.put("g", "eth0", DeviceOrder(f"daemon,,unix,{path}"))
    refused = pytest.raises(MconsoleError, match=r"could not connect it; its log: .*daemon_open")
    with hanging_up(path), refused:
        await guest.devices.put("g", "eth0", DeviceOrder(f"daemon,,unix,{path}"))
    with pytest.raises(NoSuchDevice):
        await guest.view("eth0")
    assert await guest.run("cd /sys/class/net && echo *") == "lo\n"
    # The name is free.
    assert await guest.devices.put("g", "eth0", DeviceOrder(nic=SwitchNic("lan")))
    assert not await guest.devices.put("g", "eth0", DeviceOrder(nic=SwitchNic("lan")))
    with pytest.raises(MconsoleError, match=r"already configured \(EINVAL, -22\); unplug it first: umlab"):
        await guest.devices.put("g", "eth0", DeviceOrder(nic=SwitchNic("lan", mac="02:00:00:00:00:01")))
    assert (await guest.view("eth0")).setting.startswith("daemon,,unix,")
    assert await guest.devices.remove("g", "eth0")


async def test_disk_with_a_cow_file(guest: Plugged, image: Path) -> None:
    before = image.read_bytes()
    cow = guest.disks / "cow"
    disk = await guest.devices.add("g", DeviceOrder(disk=Disk(str(cow), str(image))))
    assert (disk.name, disk.kind, disk.setting) == ("ubdb", "disk", f"{cow},{image}")
    assert int(await guest.run("cat /sys/block/ubdb/size")) * 512 == IMAGE_SIZE
    await guest.run("mkdir -p /m && mount -t ext2 /dev/ubdb /m && echo kept >/m/file")
    with pytest.raises(MconsoleError, match=r"\(EBUSY, -16\).*umount /dev/ubdb"):
        await guest.devices.remove("g", "ubdb")
    await guest.run("umount /m")
    assert await guest.devices.remove("g", "ubd1")
    assert await guest.run("cd /sys/block && echo ubd*") == "ubd*\n"
    assert image.read_bytes() == before
    # What was written is in the COW file.
    assert await guest.devices.put("g", "ubdc", DeviceOrder(disk=Disk(str(cow), str(image))))
    await guest.run("mount -t ext2 /dev/ubdc /m")
    assert await guest.run("cat /m/file; umount /m") == "kept\n"
    assert await guest.devices.remove("g", "ubdc")


async def test_disk_that_cannot_be_opened_leaves_nothing(guest: Plugged, image: Path) -> None:
    with pytest.raises(LabError, match="it cannot write to it; plug it read-only"):
        await guest.devices.put("g", "ubdb", DeviceOrder(str(image)))
    with pytest.raises(LabError, match="it cannot make a COW file there"):
        await guest.devices.put("g", "ubdb", DeviceOrder(f"{guest.elsewhere}/cow,{image}"))
    # Somebody else has it: only the kernel sees that.
    taken = guest.disks / "taken"
    shutil.copyfile(image, taken)
    with taken.open("r+b") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        with pytest.raises(MconsoleError, match=r"could not open it; its log: .*Failed to lock"):
            await guest.devices.put("g", "ubdb", DeviceOrder(str(taken)))
    with pytest.raises(NoSuchDevice):
        await guest.view("ubdb")
    assert await guest.devices.put("g", "ubd1r", DeviceOrder(str(image)))
    assert (await guest.view("ubdb")).setting == f"r={image}"
    assert await guest.run("cat /sys/block/ubdb/ro") == "1\n"
    assert await guest.devices.remove("g", "ubdb")


async def test_console(guest: Plugged) -> None:
    added = await guest.devices.add("g", DeviceOrder(console="pts"))
    assert (added.name, added.kind, added.setting) == ("con2", "console", "pts")
    await guest.run(
        "sh -c 'echo open >/tmp/open; exec sleep 1000' >/dev/tty2 2>&1 & echo $! >/tmp/pid; "
        "until [ -e /tmp/open ]; do usleep 10000; done"
    )
    assert (await guest.view("con2")).setting.startswith("pts:/dev/pts/")
    with pytest.raises(MconsoleError, match=r"already open.*end what uses it"):
        await guest.devices.remove("g", "con2")
    await guest.run("kill $(cat /tmp/pid); wait")
    assert await guest.devices.remove("g", "con2")
    assert not await guest.devices.remove("g", "con2")
    for device in ("con0", "con1", "ssl0"):
        with pytest.raises(LabError, match="the lab's own"):
            await guest.devices.put("g", device, DeviceOrder("null"))
        with pytest.raises(LabError, match="the lab's own"):
            await guest.devices.remove("g", device)


async def test_memory(guest: Plugged) -> None:
    async def free() -> int:
        return int((await guest.run("grep MemFree /proc/meminfo")).split()[1]) // 1024

    whole = await free()
    assert (await guest.view("mem")).setting == "128M"
    assert await guest.devices.put("g", "mem", DeviceOrder(memory="96M"))
    assert not await guest.devices.put("g", "mem", DeviceOrder(memory="96M"))
    assert await free() == pytest.approx(whole - 32, abs=4)
    assert (await guest.view("mem")).setting == "96M"
    with pytest.raises(LabError, match="with less than 16 it would stand still"):
        await guest.devices.put("g", "mem", DeviceOrder(memory="1M"))
    with pytest.raises(LabError, match="started with 128M"):
        await guest.devices.put("g", "mem", DeviceOrder(memory="1G"))
    with pytest.raises(LabError, match="not a change"):
        await guest.devices.put("g", "mem", DeviceOrder("-16M"))
    assert await guest.devices.remove("g", "mem")
    assert await free() == pytest.approx(whole, abs=4)


async def test_nic_that_is_stuck_is_reset(guest: Plugged) -> None:
    kept = guest.kept
    other = kept.switch(f"bess:{kept.runtime}/o", name="other")
    await kept.lab.put_switch(other)
    assert await guest.devices.put("g", "vec3", DeviceOrder(nic=SwitchNic("other")))
    await kept.lab.remove_switch("other")
    # The first time it is refused, ever after stuck.
    assert "Invalid argument" in await guest.fails("ip link set vec3 up")
    with pytest.raises(LabError, match="nobody listens"):
        await guest.devices.reset("g", "vec3")
    await kept.lab.put_switch(other)
    assert "No such device or address" in await guest.fails("ip link set vec3 up")
    await guest.devices.reset("g", "vec3")
    await guest.run("ip link set vec3 up")
    view = await guest.view("vec3")
    assert (view.switch, view.port_no) == ("other", 1)
    # One that works is not harmed.
    with pytest.raises(MconsoleError, match="EBUSY"):
        await guest.devices.reset("g", "vec3")
    await guest.devices.reset("g", "vec3", down=True)
    assert kept.lab.ports("other") == []
    with pytest.raises(NoSuchDevice):
        await guest.devices.reset("g", "vec4")
    assert await guest.devices.remove("g", "vec3")
    assert await kept.lab.remove_switch("other")
