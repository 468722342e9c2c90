"""Two real kernels on one switch, each attached in its own way, and what must not reach them."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, mac_of, nic_counters, ping, running_switch
from integration.peers.uml_kernel import running_guest
from support.deadline import deadline, wait_until_async
from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SwitchService
from umlab.guest.cmdline import BessNic, DaemonNic
from umlab.switch.counters import DropReason
from umlab.wire.ethernet import HEADER_SIZE, format_mac

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

FLOODER = bytes.fromhex("02000000aaaa")


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
        assert learned == {
            await mac_of(left, "eth0"): ports["daemon"].port_no,
            await mac_of(right, "vec0"): ports["bess"].port_no,
        }
        for kind, guest, device in (("daemon", left, "eth0"), ("bess", right, "vec0")):
            peer = ports[kind].peer
            assert peer is not None
            assert guest.guest.boot is not None
            assert (peer.pid, peer.boot) == (guest.guest.pid, guest.guest.boot)
            await _same_counters(switch, ports[kind].port_no, guest, device)
        # Six echo requests and replies, and an ARP request and reply at least.
        counters = switch.snapshot().ports.values()
        assert all(each.rx_frames >= 7 and each.tx_frames >= 7 for each in counters)
        assert all(not each.drops for each in counters)


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
        switches, guests = {}, {}
        for net in ("net1", "net2"):
            switches[net] = await stack.enter_async_context(running_switch(short_dir, net))
            for side in ("a", "b"):
                guests[net + side] = await stack.enter_async_context(
                    running_guest(short_dir, net + side, nics=(DaemonNic(str(short_dir / f"{net}.ctl")),))
                )
        for name, guest in guests.items():
            await bring_up(guest, "eth0", "10.0.0.1" if name.endswith("a") else "10.0.0.2")
        before = {name: await nic_counters(guest, "eth0") for name, guest in guests.items()}

        await _broadcast(short_dir / "net1.bess", switches["net1"], 300)
        await ping(guests["net1a"], "10.0.0.2", count=5)

        async def everything_arrived() -> bool:
            now = await nic_counters(guests["net1b"], "eth0")
            return now.rx_packets - before["net1b"].rx_packets >= 300 + 5

        await _eventually(everything_arrived, "the guests of the first network have all frames")
        for name in ("net2a", "net2b"):
            assert await nic_counters(guests[name], "eth0") == before[name]
        second = switches["net2"].snapshot().ports.values()
        assert all(port.rx_frames == port.tx_frames == 0 for port in second)
        assert switches["net2"].fdb() == []
        assert len(switches["net1"].fdb()) == 2
        await ping(guests["net2a"], "10.0.0.2")


async def test_stopped_guest_does_not_delay_the_others(short_dir: Path) -> None:
    """Only the main process is stopped: the guest's programs would report SIGCONT to their kernel, which
    kills them for it, init first."""
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
        sent_before = switch.snapshot().ports[port].tx_frames

        os.kill(stopped.guest.pid, signal.SIGSTOP)
        try:
            await _broadcast(short_dir / "lan.bess", switch, 700, slow_port=port)
            await ping(left, "10.0.0.2")
        finally:
            os.kill(stopped.guest.pid, signal.SIGCONT)

        counters = switch.snapshot().ports
        assert all(not each.drops for number, each in counters.items() if number != port)
        await wait_until_async(lambda: switch.snapshot().queued[port] == 0, 20, "the queue drains")
        await ping(left, "10.0.0.3")
        after = switch.snapshot().ports[port]
        assert set(after.drops) == {DropReason.TAIL}
        # Each frame for it either was sent or is counted as dropped, and each one sent did arrive.
        assert after.tx_frames - sent_before + after.drops[DropReason.TAIL] >= 700
        await _same_counters(switch, port, stopped, "eth0")


async def _same_counters(switch: SwitchService, port_no: int, guest: GuestService, device: str) -> None:
    """Wait until the switch has counted on a port what the guest has counted on its NIC."""

    async def same() -> bool:
        nic = await nic_counters(guest, device)
        port = switch.snapshot().ports[port_no]
        return (port.rx_frames, port.rx_bytes) == (nic.tx_packets, nic.tx_bytes) and (
            port.tx_frames,
            port.tx_bytes,
        ) == (nic.rx_packets, nic.rx_bytes + HEADER_SIZE * nic.rx_packets)

    await _eventually(same, f"port {port_no} and {device} of {guest.umid} agree")


async def _eventually(happened: Callable[[], Awaitable[bool]], what: str) -> None:
    end = deadline(20)
    while not await happened():
        assert time.monotonic() < end, what


async def _broadcast(path: Path, switch: SwitchService, count: int, slow_port: int | None = None) -> None:
    """Send frames to every port, no faster than the ports take them, the slow one left aside."""

    def others_have_read() -> bool:
        queued = switch.snapshot().queued
        return all(frames == 0 for port_no, frames in queued.items() if port_no != slow_port)

    ports = len(switch.ports())
    frame = b"\xff" * 6 + FLOODER + b"\x88\xb5" + bytes(46)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(path))
        await wait_until_async(lambda: len(switch.ports()) == ports + 1, 10, "the sender has a port")
        sender = next(port.port_no for port in switch.ports() if port.peer and port.peer.pid == os.getpid())
        for number in range(count):
            sock.send(frame)
            if number % 10 == 9:
                await wait_until_async(others_have_read, 20, "the other guests read")
        await wait_until_async(
            lambda: switch.snapshot().ports[sender].rx_frames == count, 20, "the switch has every frame"
        )
    await wait_until_async(lambda: len(switch.ports()) == ports, 10, "the sender's port is gone")
