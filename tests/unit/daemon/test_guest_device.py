"""Devices of guests: what is asked of a kernel, what is believed of its answers, what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from support.kept_lab import KeptLab
from umlab._boot import Boot
from umlab.daemon.device_order import DeviceOrder, SwitchNic
from umlab.daemon.guest import GuestService
from umlab.daemon.guest_device import GuestDevices
from umlab.daemon.view import DeviceView
from umlab.errors import (
    LabError,
    MconsoleError,
    MconsoleTimeout,
    MconsoleUnreachable,
    NoSuchDevice,
    NoSuchSwitch,
)
from umlab.guest.cmdline import BessNic
from umlab.guest.device import Disk
from umlab.testing.fault import Step, answer, dies, silent
from umlab.testing.guest import SimulatedGuest, SimulatedGuests

NIC = DeviceOrder(nic=SwitchNic("lan"))


class Devices:
    """The devices of one guest whose kernel is simulated.

    Attributes:
        kernel: Its kernel.
        kept: Its lab.
    """

    def __init__(self, kept: KeptLab, kernel: SimulatedGuest) -> None:
        self.kept = kept
        self.kernel = kernel

    @property
    def all(self) -> GuestDevices:
        return self.kept.lab.devices

    @property
    def values(self) -> dict[str, str]:
        """What the kernel has."""
        return self.kernel.kernel.devices.values

    async def put(self, device: str, order: DeviceOrder | str) -> bool:
        return await self.all.put("g", device, DeviceOrder(order) if isinstance(order, str) else order)

    async def names(self) -> set[str]:
        return {view.name for view in await self.all.views("g")} - {"con0", "con1", "ssl0", "mem"}

    def plugged(self) -> dict[str, str]:
        """What is remembered."""
        return self.kept.lab.guest_set.find("g").plugged


@pytest.fixture
async def devices(kept: KeptLab) -> AsyncIterator[Devices]:
    """Yield the devices of a guest with a disk and a NIC, and a lab with a switch."""
    runtime = kept.runtime
    await kept.lab.put_switch(kept.switch(f"daemon:{runtime}/c", f"bess:{runtime}/b"))
    await kept.lab.put_guest(kept.spec(nics=(BessNic(f"{runtime}/b"),)))
    await kept.ready()
    with SimulatedGuests(Path(kept.lab.guest("g").mconsole).parent.parent) as guests:
        kernel = guests.add("g")
        kernel.kernel.devices.values.update({"ubd0": str(kept.kernel.parent / "disk"), "vec0": "boot"})
        yield Devices(kept, kernel)


@pytest.fixture
def short_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umlab.mconsole.command.QUICK_TIMEOUT", 0.1)


async def test_nic_is_plugged_once_and_remembered(devices: Devices) -> None:
    assert await devices.put("eth1", NIC)
    assert not await devices.put("eth1", NIC)
    setting = f"daemon,,unix,{devices.kept.runtime}/c"
    assert devices.values["eth1"] == setting
    assert [text for text in devices.kernel.requests if b"daemon" in text] == [
        f"config eth1={setting}".encode()
    ]
    await devices.kept.restart()
    assert await devices.all.view("g", "eth1") == DeviceView("eth1", setting, "nic")
    assert await devices.names() == {"eth1", "vec0", "ubda"}
    assert await devices.all.remove("g", "eth1")
    assert not await devices.all.remove("g", "eth1")
    await devices.kept.restart()
    assert await devices.names() == {"vec0", "ubda"}


async def test_nic_that_the_kernel_took_and_has_not_is_an_error(devices: Devices) -> None:
    def lose(request: bytes, said: list[bytes]) -> list[bytes]:
        devices.values.pop("eth1", None)
        return said

    devices.kernel.set_fault(lose)
    with pytest.raises(MconsoleError, match="the kernel took it and could not connect it"):
        await devices.put("eth1", NIC)
    devices.kernel.set_fault(None)
    assert "eth1" not in devices.plugged()
    assert await devices.put("eth1", NIC)


async def test_kernel_that_is_silent_may_have_done_it(devices: Devices, short_timeout: None) -> None:
    devices.kernel.set_fault(silent)
    with pytest.raises(MconsoleTimeout):
        await devices.put("eth1", NIC)
    with pytest.raises(MconsoleTimeout):
        await devices.all.views("g")
    devices.kernel.set_fault(None)
    assert "eth1" in await devices.names()
    devices.kernel.set_fault(silent)
    with pytest.raises(MconsoleTimeout):
        await devices.all.remove("g", "eth1")
    devices.kernel.set_fault(None)
    assert "eth1" not in await devices.names()


async def test_guest_that_dies_meanwhile_has_nothing_new(devices: Devices) -> None:
    devices.kernel.set_fault(dies)
    with pytest.raises(MconsoleUnreachable):
        await devices.put("eth1", NIC)
    assert "eth1" not in devices.plugged()


async def test_what_others_plug_and_unplug_is_seen(devices: Devices) -> None:
    await devices.put("eth1", NIC)
    del devices.values["eth1"]
    assert "eth1" not in await devices.names()
    with pytest.raises(NoSuchDevice, match="guest g has no device eth1"):
        await devices.all.view("g", "eth1")
    # And it is plugged again, though it was plugged so before.
    assert await devices.put("eth1", NIC)
    devices.values.update({"eth2": "mcast", "ubd1": "/x"})
    assert (await devices.all.view("g", "eth2")).setting == ""
    assert (await devices.all.view("g", "ubdb")).setting == "/x"
    with pytest.raises(NoSuchDevice):
        await devices.all.view("g", "ubdc")


async def test_guest_that_rebooted_has_what_it_was_started_with(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot: list[Boot | None] = [Boot(1, 1)]
    monkeypatch.setattr("umlab.daemon.guest_device.boot_of", lambda _: boot[0])
    await devices.put("eth1", NIC)
    await devices.all.remove("g", "vec0")
    await devices.kept.restart()
    assert await devices.names() == {"eth1", "ubda"}
    # Between two boots nobody can tell.
    boot[0] = None
    assert await devices.names() == {"eth1", "ubda"}
    boot[0] = Boot(2, 2)
    devices.values["vec0"] = "boot"
    del devices.values["eth1"]
    assert await devices.names() == {"vec0", "ubda"}
    assert await devices.put("eth1", NIC)


async def test_refusals_say_what_would_help(devices: Devices) -> None:
    await devices.put("eth1", NIC)
    with pytest.raises(
        MconsoleError, match=r"\(EINVAL, -22\); unplug it first: umlab guest device rm g eth1"
    ):
        await devices.put("eth1", DeviceOrder(nic=SwitchNic("lan", mac="02:00:00:00:00:01")))
    assert devices.plugged()["eth1"].startswith("daemon,,unix")
    devices.kernel.kernel.devices.open |= {"eth1", "con3", "ubd0"}
    for device, hint in (
        ("eth1", "ip link set eth1 down"),
        ("ubda", "umount /dev/ubda"),
        ("con3", "end what"),
    ):
        with pytest.raises(MconsoleError, match=hint):
            await devices.all.remove("g", device)
    devices.kernel.set_fault(lambda request, said: answer(b"Bad configuration option", 1))
    with pytest.raises(MconsoleError, match=r"this kernel has no eth devices; Linux 6\.16"):
        await devices.put("eth2", NIC)


REFUSED = (
    ("con0", "null", "con0 is the lab's own"),
    ("ssl0", "null", "ssl0 is the lab's own"),
    ("ssl16", "null", "ssl16 is the lab's own"),
    ("mem", "-16M", r"how much memory the guest has, such as \d+M, and not a change"),
    ("mem", "4G", "a running kernel gets no more"),
    ("eth1", "daemon,,unix,/none", "guest g: eth1: nobody listens at /none: No such file"),
    ("vec1", "transport=fd,fd=9", "vec1: a descriptor is inherited"),
    ("ubdb", "/none", "ubdb: image /none: No such file"),
    ("con4", "fd:3", "a running guest cannot be given one"),
    ("con4", "bogus", "con4: 'bogus' is no channel"),
)


async def test_what_cannot_be_is_not_sent(devices: Devices) -> None:
    for device, order, text in REFUSED:
        with pytest.raises(LabError, match=text):
            await devices.put(device, order)
    with pytest.raises(NoSuchSwitch):
        await devices.put("eth1", DeviceOrder(nic=SwitchNic("other")))
    assert not any(request.startswith(b"config") and b"=" in request for request in devices.kernel.requests)
    assert set(devices.plugged()) == {"vec0", "ubda"}


async def test_names_are_chosen(devices: Devices) -> None:
    devices.values.update({"eth0": "mcast", "con2": "pts"})
    bess, pts = DeviceOrder(nic=SwitchNic("lan", "bess", mtu=9000)), DeviceOrder(console="pts")
    added = await asyncio.gather(*(devices.all.add("g", order) for order in (NIC, NIC, bess, pts)))
    assert [view.name for view in added] == ["eth1", "eth2", "vec1", "con3"]
    assert devices.values["vec1"] == f"transport=bess,dst={devices.kept.runtime}/b,mtu=9000"
    devices.values.update({f"con{number}": "pts" for number in range(2, 16)})
    with pytest.raises(LabError, match="no name is free"):
        await devices.all.add("g", pts)


async def test_disk_keeps_its_letters(devices: Devices) -> None:
    image = devices.kept.runtime / "image"
    image.touch()
    assert await devices.put("ubd1", DeviceOrder(disk=Disk(str(image), read_only=True)))
    assert b"config ubdbr=" + str(image).encode() in devices.kernel.requests
    assert not await devices.put("ubdbr", str(image))
    assert (await devices.all.view("g", "ubdb")).setting == f"r={image}"


async def test_two_disks_do_not_write_to_one_file(devices: Devices) -> None:
    guest = devices.kept.lab.guest_set.find("g").guest
    image, link = (Path(guest.run.path) / name for name in ("image", "link"))
    image.touch()
    link.symlink_to(image)
    assert await devices.put("ubdb", str(image))
    for path in (image, link):
        with pytest.raises(LabError, match=r"ubdc: ubdb writes to .* already"):
            await devices.put("ubdc", str(path))
    assert await devices.put("ubdcr", str(image))
    assert await devices.all.remove("g", "ubdb")
    assert await devices.put("ubdd", str(image))


async def test_disk_that_the_kernel_could_not_make_stays(devices: Devices) -> None:
    """A guest without disks tells of one, and panics when that is removed."""
    devices.plugged().pop("ubda")
    devices.values["ubd0"] = "root_fs"
    with pytest.raises(NoSuchDevice):
        await devices.all.view("g", "ubda")
    assert not await devices.all.remove("g", "ubda")
    assert not any(request.startswith(b"remove") for request in devices.kernel.requests)


async def test_none_unplugs_a_console(devices: Devices) -> None:
    assert await devices.put("con4", "pts")
    assert (await devices.all.view("g", "con4")).setting == "pts"
    assert await devices.put("con4", "none")
    assert not await devices.put("con4", "none")
    assert (await devices.all.view("g", "con4")).setting == "none"


async def test_nic_is_reset_as_it_was(devices: Devices) -> None:
    before = devices.plugged()["vec0"]
    await devices.all.reset("g", "vec0")
    assert devices.values["vec0"] == before == devices.plugged()["vec0"]
    for device, error in (("ubda", LabError), ("vec9", NoSuchDevice)):
        with pytest.raises(error):
            await devices.all.reset("g", device)
    # Looked for first: it keeps what it has.
    Path(devices.kept.runtime / "b").unlink()
    with pytest.raises(LabError, match="nobody listens"):
        await devices.all.reset("g", "vec0")
    assert "vec0" in devices.values


async def test_guest_without_an_agent_sets_nothing_down(
    devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GuestService, "is_ready", False)
    with pytest.raises(LabError, match="guest g has no agent that could set vec0 down"):
        await devices.all.remove("g", "vec0", down=True)
    assert "vec0" in devices.values


async def test_stopped_guest_is_told_nothing_that_it_would_do_later(devices: Devices) -> None:
    devices.kernel.kernel.stopped = True
    for act in (devices.all.remove, devices.all.reset):
        with pytest.raises(LabError, match=r"guest g is stopped.*: umlab console g -- go"):
            await act("g", "vec0", down=True)
    assert "vec0" in devices.values
    # What needs no program of the guest is done.
    assert await devices.all.remove("g", "vec0")


@pytest.fixture
def memory(devices: Devices) -> list[int]:
    """Let the kernel do what it is told, and return by how much it does less."""
    missing = [0]
    facts = devices.kernel.kernel.facts

    def change(request: bytes, said: list[bytes]) -> list[Step]:
        if request.startswith(b"config mem="):
            sign, amount = request[11:12], int(request[12:-1])
            facts.memory_free += (1 if sign == b"+" else -1) * ((amount - missing[0]) << 20)
        return [*said]

    devices.kernel.set_fault(change)
    return missing


async def test_memory_is_taken_and_given_back(devices: Devices, memory: list[int]) -> None:
    whole = devices.kept.lab.guest("g").memory >> 20
    assert await devices.put("mem", f"{whole - 32}M")
    assert not await devices.put("mem", DeviceOrder(memory=f"{whole - 32}M"))
    assert devices.kernel.kernel.devices.memory_changes == ["-32M"]
    await devices.kept.restart()
    assert (await devices.all.view("g", "mem")).setting == f"{whole - 32}M"
    assert await devices.put("mem", f"{whole - 16}M")
    assert await devices.all.remove("g", "mem")
    assert not await devices.all.remove("g", "mem")
    assert devices.kernel.kernel.devices.memory_changes == ["-32M", "+16M", "+16M"]
    with pytest.raises(LabError, match="it would stand still"):
        await devices.put("mem", "4M")


async def test_memory_that_the_kernel_did_not_take_is_an_error(devices: Devices, memory: list[int]) -> None:
    whole = devices.kept.lab.guest("g").memory >> 20
    memory[0] = 32
    with pytest.raises(MconsoleError, match="its free memory changed by 0 KiB"):
        await devices.put("mem", f"{whole - 32}M")


async def test_kernel_that_is_silent_may_have_taken_memory(devices: Devices, short_timeout: None) -> None:
    whole = devices.kept.lab.guest("g").memory >> 20
    devices.kernel.set_fault(lambda request, said: [] if b"config" in request else said)
    with pytest.raises(MconsoleTimeout):
        await devices.put("mem", f"{whole - 32}M")
    assert (await devices.all.view("g", "mem")).setting == f"{whole - 32}M"
