"""Interfaces of the host as ports of a switch with real guests, in network namespaces of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import BROADCAST, frame, mac
from integration.peers.lan import bring_up, ping, shell
from integration.peers.minimal_guest import minimal_guest
from integration.peers.namespace import NetworkNamespace, network_namespace
from integration.peers.uml_kernel import running_guest
from integration.peers.uplink import (
    GUEST,
    HOST,
    Cabled,
    OpenedIn,
    Plugged,
    bridge,
    cable,
    ours,
    switch_with,
)
from support.deadline import scaled, wait_until, wait_until_async
from support.require import require_program
from umlab.guest.cmdline import BessNic
from umlab.transports.bess import BessListener
from umlab.transports.contract import Listener
from umlab.transports.raw import RawListener, open_raw
from umlab.transports.tap import TapListener

pytestmark = pytest.mark.integration

OWN_TAP = "vec0:transport=tap,ifname=guesttap"
#: By the transport of UML's vector drivers, what it opens; ``far`` has its other end in the bridge.
OWN_INTERFACES = {"tap": "guesttap", "raw": "far", "hybrid": "second"}
#: What sends back all that comes to TCP port 5000.
ECHO = """
cd /bin
busybox ip addr add %s dev vec0
busybox ip link set vec0 up
busybox nc -ll -p 5000 -e /bin/busybox cat &
"""
#: Pings, each as soon as the one before it is answered.
LOAD = 500


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture
def veth(namespace: NetworkNamespace) -> NetworkNamespace:
    cable(namespace)
    return namespace


@pytest.fixture
def own_tap(namespace: NetworkNamespace) -> NetworkNamespace:
    """Return a namespace with a tap device that a guest opens by itself."""
    namespace.run("ip", "tuntap", "add", "dev", "guesttap", "mode", "tap")
    namespace.run("ip", "link", "set", "guesttap", "up")
    return namespace


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["tap", "raw"])
async def test_host_and_guest_reach_each_other_under_load_until_the_interface_is_deleted(
    short_dir: Path, namespace: NetworkNamespace, kind: str
) -> None:
    busybox = str(require_program("busybox"))
    uplink: Listener = TapListener("near")
    device = "near"
    if kind == "raw":
        cable(namespace)
        uplink, device = RawListener("near"), "far"
    path = short_dir / "lan.bess"
    async with switch_with(OpenedIn(namespace, uplink), BessListener(path)) as (switch, closed):
        namespace.run("ip", "addr", "add", f"{HOST}/24", "dev", device)
        namespace.run("ip", "link", "set", device, "up")
        async with running_guest(short_dir, nics=(BessNic(str(path)),)) as guest:
            await bring_up(guest, "vec0", GUEST)
            await ping(guest, HOST)
            many, answered = f"-q -A -c {LOAD} -s 1400 -W 10", f"{LOAD} packets received"
            outputs = await asyncio.gather(
                asyncio.to_thread(namespace.run, busybox, "ping", *many.split(), GUEST),
                shell(guest, f"ping {many} {HOST}"),
            )
            assert [answered in output for output in outputs] == [True, True]
            uplink_port, guest_port = (port.port_no for port in switch.ports())
            assert not any(switch.snapshot().ports[uplink_port].drops.values())

            endless = subprocess.Popen(
                namespace.words(busybox, "ping", "-A", "-q", GUEST), stdout=subprocess.DEVNULL
            )
            try:
                before = switch.snapshot().ports[guest_port].tx_frames
                await wait_until_async(
                    lambda: switch.snapshot().ports[guest_port].tx_frames > before + 100, 10, "load"
                )
                namespace.run("ip", "link", "del", "near")
                await wait_until_async(lambda: closed, 10, "the end of the port")
            finally:
                endless.kill()
                endless.wait()
            (end,) = closed
            assert (end.port_no, end.kind) == (uplink_port, kind)
            assert [port.port_no for port in switch.ports()] == [guest_port]
            await shell(guest, "ip link show vec0")


@pytest.mark.needs_root
async def test_guest_that_opens_a_tap_by_itself_meets_a_packet_socket_on_the_other_side(
    short_dir: Path, own_tap: NetworkNamespace
) -> None:
    path = short_dir / "lan.bess"
    async with switch_with(OpenedIn(own_tap, RawListener("guesttap")), BessListener(path)) as (switch, _):
        with own_tap.entered():
            running = running_guest(short_dir, extra=(OWN_TAP,), writable=("/dev/net/tun",))
            async with running as guest:
                await bring_up(guest, "vec0", HOST)
                with Plugged(path) as neighbour:
                    await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
                    neighbour.ping_host()
        assert not any(any(port.drops.values()) for port in switch.snapshot().ports.values())


@pytest.mark.needs_root
async def test_guests_that_open_interfaces_by_themselves_meet_the_switch_in_a_bridge(
    short_dir: Path, own_tap: NetworkNamespace
) -> None:
    cable(own_tap)
    own_tap.run("ip", "tuntap", "add", "dev", "second", "mode", "tap")
    path = short_dir / "lan.bess"
    async with contextlib.AsyncExitStack() as stack:
        uplink = OpenedIn(own_tap, TapListener("umltap"))
        await stack.enter_async_context(switch_with(uplink, BessListener(path)))
        bridge(own_tap, "guesttap", "second", "near", "umltap")
        with own_tap.entered():
            for number, (kind, interface) in enumerate(OWN_INTERFACES.items(), 11):
                nic = f"vec0:transport={kind},ifname={interface}"
                stack.enter_context(minimal_guest(kind, nic, extra=ECHO % f"10.77.0.{number}/24"))
        guest = await stack.enter_async_context(running_guest(short_dir, nics=(BessNic(str(path)),)))
        await bring_up(guest, "vec0", GUEST)
        made = await shell(guest, "seq 1 200000 >/tmp/made; md5sum </tmp/made")
        for number, kind in enumerate(OWN_INTERFACES, 11):
            # The host's kernel finishes here what those guests have left to it: checksums, and segments.
            echoed = await shell(guest, f"nc 10.77.0.{number} 5000 </tmp/made | md5sum")
            assert echoed == made, kind


@pytest.mark.needs_root
def test_interfaces_outlive_a_daemon_that_is_killed(veth: NetworkNamespace) -> None:
    with contextlib.ExitStack() as stack:
        with veth.entered():
            lab = stack.enter_context(BackgroundLab("up", listen=("bess", "tap:umltap", "raw:near")))
            tap, far = "umltap", stack.enter_context(open_raw("far"))
        veth.run("ip", "link", "set", tap, "up")
        far.settimeout(scaled(10))
        path = lab.runtime / "up.bess"

        def pass_frames(source: int) -> None:
            with veth.entered():
                host = open_raw(tap)
            with Plugged(path) as guest, host:
                wait_until(lambda: len(lab.client.ports("up")) == 3, 10, "three ports")
                for number, sender in enumerate((guest.sock, far, host), source):
                    data = frame(BROADCAST, mac(number))
                    sender.send(data)
                    if sender is not guest.sock:
                        assert guest.receive(ours) == data
                    if sender is not far:
                        while far.recv(2000) != data:
                            pass
            wait_until(lambda: len(lab.client.ports("up")) == 2, 10, "two ports")

        pass_frames(1)
        lab.kill_daemon()
        lab.start()
        pass_frames(11)
        assert {port.kind for port in lab.client.ports("up")} == {"tap", "raw"}
        for name in ("near", tap):
            left = len(lab.client.ports("up"))
            veth.run("ip", "link", "del", name)
            wait_until(lambda most=left: len(lab.client.ports("up")) < most, 10, f"{name} to go")


@pytest.fixture
def cabled(short_dir: Path) -> Iterator[tuple[Cabled, Path]]:
    path = short_dir / "bess"
    made = Cabled(path)
    with made.process:
        try:
            made.wait_for("started")
            yield made, path
        finally:
            made.process.terminate()


def test_plain_user_has_an_uplink_in_a_user_namespace(cabled: tuple[Cabled, Path]) -> None:
    running, path = cabled
    with Plugged(path) as guest:
        running.wait_for("session_opened", "session_opened")
        guest.ping_host()
