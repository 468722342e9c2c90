"""A switch with real guests on it: what the tests of whole networks share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from support.deadline import scaled
from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SwitchService
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.daemon import DaemonListener


@asynccontextmanager
async def running_switch(base: Path, name: str = "lan", *, v0: bool = False) -> AsyncIterator[SwitchService]:
    """Run a switch on ``NAME.ctl``, ``NAME.bess`` and, with ``v0``, ``NAME.data`` in a directory."""
    data = str(base / f"{name}.data") if v0 else None
    listeners = [DaemonListener(str(base / f"{name}.ctl"), data), BessListener(str(base / f"{name}.bess"))]
    switch = SwitchService(name, SwitchConfig(), listeners)
    await switch.start()
    try:
        yield switch
    finally:
        await switch.stop()


async def shell(guest: GuestService, command: str) -> str:
    """Run a command in a guest that must succeed, and return its output."""
    result = await guest.run(command, scaled(30))
    output = (result.stdout + result.stderr).decode(errors="replace")
    assert result.status == 0, f"{guest.umid}: {command}: status {result.status}: {output}"
    return output


async def bring_up(guest: GuestService, device: str, address: str) -> None:
    """Give a guest's NIC an address in a /24 and bring it up."""
    await shell(guest, f"ip addr add {address}/24 dev {device} && ip link set {device} up")


async def ping(guest: GuestService, address: str, count: int = 3) -> None:
    """Let a guest ping an address, each time as soon as it has an answer; every ping must be answered."""
    output = await shell(guest, f"ping -A -c {count} -W 10 {address}")
    assert f"{count} packets transmitted, {count} packets received" in output


async def mac_of(guest: GuestService, device: str) -> str:
    """Return the address of a guest's NIC as the guest shows it."""
    return (await shell(guest, f"cat /sys/class/net/{device}/address")).strip()


class NicCounters(NamedTuple):
    """What a guest says that its NIC has received and sent; its kernel takes the 14 bytes of a received
    frame's header off before it counts."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int


async def nic_counters(guest: GuestService, device: str) -> NicCounters:
    """Return a guest's own counters of a NIC."""
    names = " ".join(NicCounters._fields)
    output = await shell(guest, f"cd /sys/class/net/{device}/statistics && cat {names}")
    return NicCounters(*map(int, output.split()))
