"""A guest that reboots leaves control connections behind that never end; its old ports must go."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, ping, running_switch
from integration.peers.uml_kernel import running_guest
from support.deadline import wait_until_async
from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SwitchService
from umlab.guest.cmdline import BessNic, DaemonNic

pytestmark = pytest.mark.integration


def ports_of(switch: SwitchService, guest: GuestService) -> list[str]:
    """Return the kinds of a guest's ports, sorted."""
    return sorted(port.kind for port in switch.ports() if port.peer and port.peer.pid == guest.guest.pid)


async def reboot(guest: GuestService) -> None:
    """Reboot a guest from its console and wait until the new boot's agent answers."""
    before = guest.guest.boot
    await guest.mconsole.reboot()
    await wait_until_async(lambda: guest.guest.boot not in (None, before), 30, "a new boot")


async def test_guest_with_two_nics_keeps_both_and_a_reboot_retires_the_old_ones(short_dir: Path) -> None:
    """eth0 is up and closes its connection at the reboot; eth1 is down and leaks it."""
    nic = DaemonNic(str(short_dir / "lan.ctl"))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        other = await stack.enter_async_context(running_guest(short_dir, "other", nics=(nic,)))
        guest = await stack.enter_async_context(running_guest(short_dir, "two", nics=(nic, nic)))
        await bring_up(other, "eth0", "10.0.0.1")
        await bring_up(guest, "eth0", "10.0.0.2")
        assert ports_of(switch, guest) == ["daemon", "daemon"]
        await ping(other, "10.0.0.2")

        for _ in range(3):
            boots = {port.peer.boot for port in switch.ports() if port.peer}
            await reboot(guest)
            await wait_until_async(
                lambda boots=boots: (
                    [
                        port.peer.boot not in boots
                        for port in switch.ports()
                        if port.peer and port.peer.pid == guest.guest.pid
                    ]
                    == [True, True]
                ),
                30,
                "both NICs of the new boot, and nothing of the old one",
            )

        assert ports_of(switch, other) == ["daemon"]
        assert len(switch.ports()) == 3


async def test_bess_connection_that_leaks_at_a_reboot_is_retired(short_dir: Path) -> None:
    nics = (DaemonNic(str(short_dir / "lan.ctl")), BessNic(str(short_dir / "lan.bess")))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        guest = await stack.enter_async_context(running_guest(short_dir, "both", nics=nics))
        await bring_up(guest, "vec0", "10.0.0.2")
        assert ports_of(switch, guest) == ["bess", "daemon"]

        await reboot(guest)

        # The new boot attaches eth0 at once and vec0 only when it is brought up.
        await wait_until_async(lambda: ports_of(switch, guest) == ["daemon"], 30, "the old ports are gone")
