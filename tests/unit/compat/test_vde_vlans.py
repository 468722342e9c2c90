"""What the engine is told when a console changes VLANs."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.guest_end import plug
from umlab.compat._vde_console import Console, Setting
from umlab.compat._vde_ports import VdeSwitch
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import PortConfig, SwitchConfig
from umlab.switch.vlan import PortVlan, VidSet

#: VLAN 0, inside.
VID_OF_0 = 4094


class Net:
    """A switch of five ports without its clients, and its console."""

    def __init__(self, *, hub: bool = False) -> None:
        self.switch = VdeSwitch(SwitchConfig(hub=hub), [], 6)
        self.console = Console(self.switch, Setting("/net", 0o660, bytes(6), None, 0o600, 128))

    def say(self, *lines: str) -> list[int]:
        """Give commands and return their error numbers."""
        return [self.console.execute(line).code for line in lines]

    def vlan(self, port_no: int) -> PortVlan | None:
        """Return what the engine knows of a port."""
        return self.switch.config.ports.get(port_no, PortConfig()).vlan


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    made = Net()
    await made.switch.start()
    yield made
    await made.switch.stop()


async def test_ports_are_transparent_until_there_is_a_vlan_and_afterwards(net: Net) -> None:
    assert net.say("port/create 1", "port/setvlan 1 0", "vlan/addport 0 1") == [0, 0, 0]
    assert net.switch.config.ports == {}
    assert net.say("vlan/create 7") == [0]
    assert {net.vlan(port_no) for port_no in range(1, 6)} == {PortVlan.access(VID_OF_0)}
    assert net.say("vlan/remove 7") == [0]
    assert net.switch.config.ports == {}
    assert net.say("port/setvlan 1 4095") == [0]
    assert net.vlan(2) == PortVlan.access(VID_OF_0)
    assert net.say("port/remove 1") == [0]
    assert net.switch.config.ports == {}


async def test_port_is_of_the_vlans_that_it_was_given(net: Net) -> None:
    net.say("port/create 1", "port/create 2", "vlan/create 7", "vlan/create 8")
    net.say("port/setvlan 1 7", "vlan/addport 8 1", "vlan/addport 7 2")
    assert net.vlan(1) == PortVlan.trunk(VidSet.of([8]), native=7)
    assert net.vlan(2) == PortVlan.trunk(VidSet.of([7]), native=VID_OF_0)
    net.say("vlan/delport 8 1", "port/setvlan 2 4095")
    assert net.vlan(1) == PortVlan.access(7)
    assert net.vlan(2) == PortVlan.trunk(VidSet.of([7]))
    # It leaves one VLAN for the other, and has it without tags where it had it with.
    net.say("vlan/addport 8 1", "port/setvlan 1 8")
    assert net.vlan(1) == PortVlan.access(8)


async def test_port_of_no_vlan_takes_and_gets_nothing(net: Net) -> None:
    net.say("port/create 1", "vlan/create 1", "vlan/create 3", "port/setvlan 1 4095")
    nowhere = net.vlan(1)
    assert nowhere is not None
    assert (nowhere.pvid, len(nowhere.admitted)) == (None, 0)
    # No port takes a frame of what it would be sent.
    assert nowhere.members == VidSet.of([2])
    net.say("vlan/create 2")
    assert net.vlan(1) == PortVlan(untagged=VidSet.of([4]))


async def test_there_is_always_a_vlan_that_nobody_has(net: Net) -> None:
    net.switch.vlans.update(range(1, 4092))
    assert net.say("vlan/create 4093", "vlan/create 4092", "vlan/remove 5", "vlan/create 4092") == [
        0,
        28,
        0,
        0,
    ]
    assert net.say("port/create 1", "port/setvlan 1 4095") == [0, 0]
    assert net.vlan(1) == PortVlan(untagged=VidSet.of([5]))


async def test_ports_that_come_later_are_of_vlan_0(net: Net) -> None:
    net.say("vlan/create 7", "port/setnumports 9")
    assert net.vlan(8) == PortVlan.access(VID_OF_0)
    assert net.vlan(9) is None
    net.say("port/create 8", "port/setvlan 8 7")
    assert net.vlan(8) == PortVlan.access(7)
    net.say("port/remove 8")
    assert net.vlan(8) == PortVlan.access(VID_OF_0)
    net.say("port/setnumports 3")
    assert set(net.switch.config.ports) == {1, 2}


async def test_hub_forgets_no_vlan(net: Net) -> None:
    net.say("port/create 1", "vlan/create 7", "port/setvlan 1 7", "port/sethub 1", "vlan/create 8")
    assert net.switch.config.hub
    assert net.switch.config.ports == {}
    net.say("port/setvlan 1 8", "port/sethub 0")
    assert not net.switch.config.hub
    assert net.vlan(1) == PortVlan.access(8)


async def test_switch_that_begins_as_a_hub_stays_one() -> None:
    net = Net(hub=True)
    await net.switch.start()
    try:
        net.say("vlan/create 7")
        assert net.switch.config.hub
        assert net.switch.config.ports == {}
    finally:
        await net.switch.stop()


async def test_address_of_vlan_0_is_kept_when_vlans_come_and_go(net: Net) -> None:
    guest = plug(net.switch.engine)
    station = b"\2\0\0\0\0\1"
    try:
        now_ns = net.switch.snapshot().at_ns
        net.switch.engine.restore_fdb([FdbEntry(station, guest.port_no, now_ns)])
        for command, vid in (
            ("vlan/create 7", VID_OF_0),
            ("vlan/create 8", VID_OF_0),
            ("port/sethub 1", 0),
            ("port/sethub 0", VID_OF_0),
        ):
            net.say(command)
            assert net.switch.fdb() == [FdbEntry(station, guest.port_no, now_ns, vid)]
    finally:
        guest.close()
