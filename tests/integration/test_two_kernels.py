"""Two real kernels on one switch, each attached in its own way, and what must not reach them."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, mac_of, ping, received, running_switch, shell
from integration.peers.uml_kernel import running_guest
from support.deadline import wait_until_async
from umlab.daemon.switch import SwitchService
from umlab.guest.cmdline import BessNic, DaemonNic
from umlab.switch.counters import DropReason
from umlab.wire.ethernet import format_mac

pytestmark = pytest.mark.integration


async def test_daemon_and_bess_guests_ping_each_other(short_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        left = await stack.enter_async_context(
            running_guest(short_dir, "left", nics=(DaemonNic(str(short_dir / "lan.ctl")),))
        )
        right = await stack.enter_async_context(
            running_guest(short_dir, "right", nics=(BessNic(str(short_dir / "lan.bess")),))
        )
        await bring_up(left, "eth0", "10.0.0.1")
        await bring_up(right, "vec0", "10.0.0.2")

        await ping(left, "10.0.0.2")
        await ping(right, "10.0.0.1")

        learned = {format_mac(entry.mac): entry.port_no for entry in switch.fdb()}
        ports = {port.kind: port for port in switch.ports()}
        assert learned[await mac_of(left, "eth0")] == ports["daemon"].port_no
        assert learned[await mac_of(right, "vec0")] == ports["bess"].port_no
        for kind, guest in (("daemon", left), ("bess", right)):
            peer = ports[kind].peer
            assert peer is not None
            assert guest.guest.boot is not None
            assert (peer.pid, peer.boot) == (guest.guest.pid, guest.guest.boot)
        counters = switch.snapshot().ports
        # Three echo requests and three replies went each way at least, and nothing was lost.
        assert all(each.rx_frames >= 6 and each.tx_frames >= 6 for each in counters.values())
        assert all(not each.drops for each in counters.values())


async def test_guest_syntax_with_a_data_socket_is_served(short_dir: Path) -> None:
    """``eth0=daemon,,unix,CTL,DATA`` names a socket that protocol v3 does not need."""
    nic = DaemonNic(str(short_dir / "lan.ctl"), data_path=str(short_dir / "lan.data"))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir, v0=True))
        left = await stack.enter_async_context(running_guest(short_dir, "left", nics=(nic,)))
        right = await stack.enter_async_context(running_guest(short_dir, "right", nics=(nic,)))
        await bring_up(left, "eth0", "10.0.0.1")
        await bring_up(right, "eth0", "10.0.0.2")

        await ping(left, "10.0.0.2")

        assert [port.detail for port in switch.ports()] == ["v3", "v3"]


async def test_two_networks_side_by_side_do_not_leak(short_dir: Path) -> None:
    async with AsyncExitStack() as stack:
        guests = {}
        for net in ("net1", "net2"):
            await stack.enter_async_context(running_switch(short_dir, net))
            for side in ("a", "b"):
                guests[net + side] = await stack.enter_async_context(
                    running_guest(short_dir, net + side, nics=(DaemonNic(str(short_dir / f"{net}.ctl")),))
                )
        for name, guest in guests.items():
            await bring_up(guest, "eth0", "10.0.0.1" if name.endswith("a") else "10.0.0.2")
        before = {side: await received(guests[f"net2{side}"], "eth0") for side in "ab"}

        await ping(guests["net1a"], "10.0.0.2", count=5)
        await shell(guests["net1a"], "arping -c 5 -f -I eth0 10.0.0.99 || true")

        assert {side: await received(guests[f"net2{side}"], "eth0") for side in "ab"} == before
        await ping(guests["net2a"], "10.0.0.2")


async def test_stopped_guest_does_not_delay_the_others(short_dir: Path) -> None:
    nic = DaemonNic(str(short_dir / "lan.ctl"))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        names = ("left", "right", "stopped")
        left, right, stopped = [
            await stack.enter_async_context(running_guest(short_dir, name, nics=(nic,))) for name in names
        ]
        for number, guest in enumerate((left, right, stopped), 1):
            await bring_up(guest, "eth0", f"10.0.0.{number}")
        await ping(left, "10.0.0.3")
        port = next(
            each.port_no for each in switch.ports() if each.peer and each.peer.pid == stopped.guest.pid
        )

        os.killpg(stopped.guest.pid, signal.SIGSTOP)
        try:
            await _broadcast(short_dir / "lan.bess", switch, 700, port)
            await ping(left, "10.0.0.2")
        finally:
            os.killpg(stopped.guest.pid, signal.SIGCONT)

        counters = switch.snapshot().ports
        assert counters[port].drops.get(DropReason.TAIL, 0) > 0
        assert all(not each.drops for number, each in counters.items() if number != port)
        await wait_until_async(lambda: switch.snapshot().queued[port] == 0, 20, "the queue drains")
        await ping(left, "10.0.0.3")


async def _broadcast(path: Path, switch: SwitchService, count: int, slow_port: int) -> None:
    """Send frames to every port, no faster than the ports take them, the slow one left aside."""

    def others_have_read() -> bool:
        queued = switch.snapshot().queued
        return all(frames == 0 for port_no, frames in queued.items() if port_no != slow_port)

    frame = b"\xff" * 6 + bytes.fromhex("02000000aaaa") + b"\x88\xb5" + bytes(46)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        await wait_until_async(lambda: len(switch.ports()) == 4, 10, "the sender has a port")
        for number in range(count):
            sock.send(frame)
            if number % 10 == 9:
                await wait_until_async(others_have_read, 20, "the other guests read")
        sender = max(switch.snapshot().ports)
        await wait_until_async(
            lambda: switch.snapshot().ports[sender].rx_frames == count, 20, "the switch has every frame"
        )
    await wait_until_async(lambda: len(switch.ports()) == 3, 10, "the sender's port is gone")
