"""A guest that reboots leaves control connections behind that never end; its old ports must go."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, ping, running_switch, shell
from integration.peers.uml_kernel import running_guest
from support.deadline import scaled, wait_until_async
from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SessionClosed, SwitchService
from umlab.guest.cmdline import BessNic, DaemonNic

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

STRICT_ARP = "cd /proc/sys/net/ipv4/conf/all && echo 1 >arp_ignore && echo 2 >arp_announce"


def ports_of(switch: SwitchService, guest: GuestService) -> list[str]:
    """Return the kinds of a guest's ports, sorted; each must belong to its present boot."""
    held = [port for port in switch.ports() if port.peer and port.peer.pid == guest.guest.pid]
    assert {port.peer.boot for port in held if port.peer} <= {guest.guest.boot}
    return sorted(port.kind for port in held)


async def test_each_of_three_reboots_leaves_exactly_the_ports_of_the_new_boot(short_dir: Path) -> None:
    """At the reboot eth0 is up and closes its connection; eth1 is down and vec0 is up, and both leak it."""
    daemon, bess = DaemonNic(str(short_dir / "lan.ctl")), BessNic(str(short_dir / "lan.bess"))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        closed: list[SessionClosed] = []
        switch.subscribe(lambda event: closed.append(event) if isinstance(event, SessionClosed) else None)
        other = await stack.enter_async_context(running_guest(short_dir, "other", nics=(daemon,)))
        guest = await stack.enter_async_context(
            running_guest(short_dir, "three", nics=(daemon, daemon, bess))
        )
        await bring_up(other, "eth0", "10.0.0.1")
        await shell(other, "ip addr add 10.0.1.1/24 dev eth0")

        async def use_two_of_three_nics() -> None:
            await shell(guest, STRICT_ARP)
            await bring_up(guest, "eth0", "10.0.0.2")
            await bring_up(guest, "vec0", "10.0.1.2")
            # The other guest may remember the addresses of the boot before.
            await shell(other, "ip neigh flush dev eth0")
            for address in ("10.0.0.2", "10.0.1.2"):
                await ping(other, address)
            for address in ("10.0.0.1", "10.0.1.1"):
                await ping(guest, address)
            assert ports_of(switch, guest) == ["bess", "daemon", "daemon"]
            assert len(switch.ports()) == 4

        await use_two_of_three_nics()
        for _ in range(3):
            closed.clear()
            await guest.reboot(scaled(30))

            assert ports_of(switch, guest) == ["daemon", "daemon"]
            assert ports_of(switch, other) == ["daemon"]
            assert sorted((each.kind, each.cause) for each in closed) == [
                ("bess", "retired"),
                ("daemon", "guest"),
                ("daemon", "retired"),
            ]
            await use_two_of_three_nics()


async def test_bess_port_of_the_old_boot_goes_when_the_new_boot_connects(short_dir: Path) -> None:
    """With bess alone nothing tells the switch of the reboot before the interface comes up again."""
    nic = BessNic(str(short_dir / "lan.bess"))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        other = await stack.enter_async_context(running_guest(short_dir, "other", nics=(nic,)))
        guest = await stack.enter_async_context(running_guest(short_dir, "guest", nics=(nic,)))
        await bring_up(other, "vec0", "10.0.0.1")
        await bring_up(guest, "vec0", "10.0.0.2")
        await ping(other, "10.0.0.2")

        await guest.reboot(scaled(30))
        assert len(switch.ports()) == 2
        await bring_up(guest, "vec0", "10.0.0.2")

        await wait_until_async(lambda: ports_of(switch, guest) == ["bess"], 10, "the old port is gone")
        assert len(switch.ports()) == 2
        await shell(other, "ip neigh flush dev vec0")
        await ping(other, "10.0.0.2")
        await ping(guest, "10.0.0.1")
