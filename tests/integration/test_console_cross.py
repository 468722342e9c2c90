"""Old and new tools in one session: each console with a guest on the other's switch."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, ping, shell
from integration.peers.uml_kernel import running_guest
from integration.peers.uml_mconsole import mconsole
from integration.peers.uml_switch import uml_switch
from support.deadline import scaled
from umlab.guest.cmdline import DaemonNic
from umlab.guest.process import HALT_STATUSES

pytestmark = [pytest.mark.integration, pytest.mark.any_user]


@pytest.mark.parametrize(
    ("console_is", "switch_is"), [("original", "ours"), ("ours", "original"), ("ours", "ours")]
)
async def test_console_manages_guests_on_the_others_switch(
    short_dir: Path, console_is: str, switch_is: str
) -> None:
    control = short_dir / "net.ctl"
    nic = DaemonNic(str(control))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(
            uml_switch(switch_is, ["-unix", str(control)], ready=[control])
        )
        left = await stack.enter_async_context(running_guest(short_dir, "left", nics=(nic,)))
        right = await stack.enter_async_context(running_guest(short_dir, "right", nics=(nic,)))
        await bring_up(left, "eth0", "10.0.0.1")
        await bring_up(right, "eth0", "10.0.0.2")
        await ping(left, "10.0.0.2")
        paths = {guest: guest.guest.run.mconsole_path for guest in (left, right)}
        eth1 = f"eth1=daemon,,unix,{control}"
        release = (await shell(left, "uname -r")).strip()

        assert release in await mconsole(console_is, paths[left], "version")
        assert (await mconsole(console_is, paths[left], "config", eth1)).strip() == "OK"
        await switch.wait_line("New connection", 3)
        assert "eth1" in await shell(left, "ip -o link show eth1")
        assert (await mconsole(console_is, paths[left], "remove", "eth1")).strip() == "OK"
        assert "eth1" not in await shell(left, "ip -o link")
        assert "MemTotal" in await mconsole(console_is, paths[right], "proc", "meminfo")
        for guest in (left, right):
            assert (await mconsole(console_is, paths[guest], "halt")).strip() == "OK"
            assert await asyncio.wait_for(guest.guest.wait(), scaled(20)) in HALT_STATUSES
        await switch.wait_line("Disconnect", 2)
