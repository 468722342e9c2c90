"""What the switch knows of a real kernel that attaches, and when it knows that it is gone; tap devices."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from integration.peers.lan import bring_up, mac_of, ping, running_switch, shell
from integration.peers.namespace import NetworkNamespace, network_namespace
from integration.peers.uml_kernel import running_guest
from support.deadline import wait_until_async
from support.require import require_program
from umlab.daemon.guest import GuestService
from umlab.daemon.switch import PortInfo, ServiceEvent, SessionClosed, SessionOpened, SwitchService
from umlab.errors import TransportError
from umlab.guest.cmdline import BessNic, DaemonNic
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import Listener, Peer, SessionSink
from umlab.transports.daemon import DaemonListener
from umlab.transports.tap import TapListener, open_tap
from umlab.wire.ethernet import format_mac

pytestmark = pytest.mark.integration


def identity(guest: GuestService) -> Peer:
    """Return what the switch should know of a guest's process."""
    assert guest.guest.boot is not None
    return Peer(guest.guest.pid, os.geteuid(), os.getegid(), guest.guest.boot, tuple(os.getgroups()))


def recorded(switch: SwitchService) -> list[ServiceEvent]:
    """Return a list that every event from now on is added to."""
    events: list[ServiceEvent] = []
    switch.subscribe(events.append)
    return events


async def closed(events: list[ServiceEvent]) -> SessionClosed:
    """Wait for the first end of a session."""

    def ends() -> list[SessionClosed]:
        return [event for event in events if isinstance(event, SessionClosed)]

    return (await wait_until_async(ends, 20, "the end of a session"))[0]


async def test_kernel_attaches_over_daemon_v3_at_boot_and_stays_while_its_nic_is_down(
    short_dir: Path,
) -> None:
    nic = DaemonNic(str(short_dir / "lan.ctl"))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        events = recorded(switch)
        guest = await stack.enter_async_context(running_guest(short_dir, nics=(nic,)))
        peer = identity(guest)
        assert peer.boot is not None
        held = [os.stat(each) for each in Path(f"/proc/{peer.pid}/fd").iterdir()]
        memory = [each for each in held if each.st_ino == peer.boot.inode and each.st_size >= 32 << 20]
        assert [each.st_nlink for each in memory[:1]] == [0], "its memory is a deleted file"

        assert switch.ports() == [PortInfo(1, "daemon", "v3", peer, "guest")]
        (opened,) = [event for event in events if isinstance(event, SessionOpened)]
        assert (opened.port_no, opened.kind, opened.detail, opened.peer) == (1, "daemon", "v3", peer)

        await bring_up(guest, "eth0", "10.0.0.1")
        await shell(guest, "ip link set eth0 down && ip link set eth0 up && ip link set eth0 down")
        assert switch.ports() == [PortInfo(1, "daemon", "v3", peer, "guest")]

        await guest.mconsole.remove("eth0")
        assert (await closed(events)).cause == "guest"
        assert switch.ports() == []


async def test_kernel_attaches_over_bess_while_its_nic_is_up(short_dir: Path) -> None:
    nic = BessNic(str(short_dir / "lan.bess"))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        guest = await stack.enter_async_context(running_guest(short_dir, nics=(nic,)))
        assert switch.ports() == []
        for _ in range(2):
            events = recorded(switch)
            await shell(guest, "ip link set vec0 up")
            await wait_until_async(switch.ports, 10, "a port")
            assert switch.ports() == [PortInfo(1, "bess", "", identity(guest), "guest")]
            await shell(guest, "ip link set vec0 down")
            end = await closed(events)
            assert (end.kind, end.cause) == ("bess", "link")
            assert switch.ports() == []


async def test_guest_that_is_killed_loses_all_its_ports(short_dir: Path) -> None:
    nics = (DaemonNic(str(short_dir / "lan.ctl")), BessNic(str(short_dir / "lan.bess")))
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch(short_dir))
        async with running_guest(short_dir, nics=nics) as guest:
            await bring_up(guest, "eth0", "10.0.0.1")
            await bring_up(guest, "vec0", "10.0.1.1")
            kinds = [port.kind for port in switch.ports()]
            assert kinds == ["daemon", "bess"]
            assert {port.peer for port in switch.ports()} == {identity(guest)}
        await wait_until_async(lambda: not switch.ports(), 10, "no port")
        assert switch.fdb() == []


# Tap devices, in a network namespace of the test's own.

ADDRESS, GUEST_ADDRESS = "10.77.0.1", "10.77.0.2"


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


class TapInNamespace(TapListener):
    """Opens its device in a namespace; the switch itself stays where it is."""

    def __init__(self, device: str, namespace: NetworkNamespace) -> None:
        super().__init__(device)
        self._namespace = namespace

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Open it there; see :class:`umlab.transports.contract.Listener`."""
        with self._namespace.entered():
            await super().start(sink, kept)


@pytest.mark.needs_root
async def test_real_guest_and_the_host_ping_each_other_through_a_tap(
    short_dir: Path, namespace: NetworkNamespace
) -> None:
    busybox = str(require_program("busybox"))
    listeners: list[Listener] = [DaemonListener(short_dir / "lan.ctl"), TapInNamespace("umltap", namespace)]
    switch = SwitchService("lan", SwitchConfig(), listeners)
    await switch.start()
    try:
        assert switch.ports() == [PortInfo(1, "tap", "umltap", None)]
        namespace.run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "umltap")
        namespace.run("ip", "link", "set", "umltap", "up")
        nic = DaemonNic(str(short_dir / "lan.ctl"))
        async with running_guest(short_dir, nics=(nic,)) as guest:
            await bring_up(guest, "eth0", GUEST_ADDRESS)
            await ping(guest, ADDRESS)
            words = (busybox, "ping", "-c", "3", "-W", "10", GUEST_ADDRESS)
            output = await asyncio.to_thread(namespace.run, *words)
            assert "3 packets transmitted, 3 packets received" in output
            learned = {format_mac(entry.mac): entry.port_no for entry in switch.fdb()}
            (device,) = json.loads(namespace.run("ip", "-json", "link", "show", "umltap"))
            assert learned[await mac_of(guest, "eth0")] == 2
            assert learned[device["address"]] == 1
        await wait_until_async(lambda: len(switch.ports()) == 1, 10, "the guest's port is gone")
        events = recorded(switch)
        namespace.run("ip", "link", "del", "umltap")
        end = await closed(events)
        assert (end.kind, end.cause) == ("tap", "link")
        assert switch.ports() == []
    finally:
        await switch.stop()


@pytest.mark.needs_root
def test_tap_that_is_taken_or_is_none_is_refused_with_the_reason(namespace: NetworkNamespace) -> None:
    with namespace.entered():
        fd = open_tap("umltap")
        try:
            with pytest.raises(TransportError, match="tap device umltap: another program has it open"):
                open_tap("umltap")
            with pytest.raises(TransportError, match="tap device lo: it is there and is no tap device"):
                open_tap("lo")
        finally:
            os.close(fd)
    assert "umltap" not in namespace.run("ip", "link"), "a device that we made goes with us"


@pytest.mark.needs_plain_user
def test_tap_of_a_plain_user_says_what_root_has_to_do() -> None:
    with pytest.raises(TransportError, match=r"(let root (make it|run)|load the kernel module)"):
        open_tap("umltap")
