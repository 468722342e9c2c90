"""What comes through a tap device and a packet socket, frame by frame, in network namespaces of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, frame, mac
from integration.peers.namespace import NetworkNamespace, network_namespace
from integration.peers.uplink import (
    OpenedIn,
    Plugged,
    bridge,
    cable,
    is_solicitation,
    ours,
    pass_frame,
    solicitation,
    switch_with,
    waiting,
)
from support.deadline import scaled, wait_until, wait_until_async
from support.engines import ENGINES
from umlab.errors import TransportError
from umlab.switch.counters import DropReason
from umlab.transports.bess import BessListener
from umlab.transports.contract import Listener
from umlab.transports.raw import RawListener, open_raw
from umlab.transports.tap import TapListener, open_tap

pytestmark = pytest.mark.integration

#: struct tpacket_auxdata's PACKET_AUXDATA at SOL_PACKET, and its bit for a tag.
SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 1 << 4


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture
def veth(namespace: NetworkNamespace) -> NetworkNamespace:
    cable(namespace)
    return namespace


# Tap devices.


@pytest.mark.needs_root
async def test_hosts_own_router_solicitations_stay_out_of_the_lab(
    short_dir: Path, namespace: NetworkNamespace
) -> None:
    with namespace.entered():
        control = open_tap("control", solicitations=True)
    path = short_dir / "lan.bess"
    try:
        async with switch_with(OpenedIn(namespace, TapListener("umltap")), BessListener(path)) as (switch, _):
            with Plugged(path) as guest:
                await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
                for name in ("umltap", "control"):
                    namespace.run("ip", "link", "set", name, "up")
                # Twice, so that the other device, which was up before, has had its turn meanwhile.
                for _ in range(2):
                    await asyncio.to_thread(_read_until, control, is_solicitation)
                guest.sock.setblocking(False)
                heard = waiting(guest.sock.fileno())
    finally:
        os.close(control)
    assert [data for data in heard if data[12:14] == b"\x86\xdd"], "its other IPv6 frames come through"
    assert not [data for data in heard if is_solicitation(data)]


def _read_until(fd: int, wanted: Callable[[bytes], bool]) -> None:
    while select.select([fd], [], [], scaled(20))[0]:
        if wanted(os.read(fd, 2000)):
            return
    raise TimeoutError


@pytest.mark.needs_root
async def test_router_solicitations_of_others_pass_a_tap_in_a_bridge(
    short_dir: Path, veth: NetworkNamespace
) -> None:
    path = short_dir / "lan.bess"
    async with switch_with(OpenedIn(veth, TapListener("umltap")), BessListener(path)) as (switch, _):
        bridge(veth, "umltap", "near")
        with veth.entered():
            far = open_raw("far")
        with Plugged(path) as guest, far:
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            far.send(solicitation(mac(1)))
            assert guest.receive(ours) == solicitation(mac(1))
            guest.sock.send(solicitation(mac(2)))
            far.settimeout(scaled(10))
            while (data := far.recv(2000)) != solicitation(mac(2)):
                assert not ours(data)


@pytest.mark.needs_root
def test_lasting_tap_can_be_opened_again(namespace: NetworkNamespace) -> None:
    namespace.run("ip", "tuntap", "add", "dev", "umltap", "mode", "tap")
    namespace.run("ip", "link", "set", "umltap", "up")
    for number in range(3):
        with namespace.entered():
            fd = open_tap("umltap")
            host = open_raw("umltap")
        with host:
            pass_frame(host, fd, frame(BROADCAST, mac(number)))
        os.close(fd)


# Packet sockets.


@pytest.mark.needs_root
@pytest.mark.parametrize("engine", ENGINES)
async def test_frames_pass_a_packet_socket_byte_by_byte_with_their_tags(
    short_dir: Path, veth: NetworkNamespace, engine: str
) -> None:
    path = short_dir / "lan.bess"
    listeners = (OpenedIn(veth, RawListener("near")), BessListener(path))
    tags = ("", "8100 0065", "8100 e000", "88a8 0064 8100 0065", "8100 0001 8100 0002")
    async with switch_with(*listeners, engine=engine) as (
        switch,
        _,
    ):
        with veth.entered():
            far = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            far.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
            far.bind(("far", 3))
        with Plugged(path) as guest, far:
            far.settimeout(scaled(10))
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            for size in (60, 1400):
                for tag in map(bytes.fromhex, tags):
                    rest = tag + b"\x88\xb5" + os.urandom(size)
                    up, down = mac(9) + mac(1) + rest, BROADCAST + mac(2) + rest
                    far.send(up)
                    assert guest.receive(ours) == up
                    guest.sock.send(down)
                    while not ours(found := _received_whole(far)) or found[6:12] == mac(1):
                        pass
                    assert found == down
            snapshot = switch.snapshot()
            assert not any(any(port.drops.values()) for port in snapshot.ports.values())


def _received_whole(sock: socket.socket) -> bytes:
    """Return the next frame with the tag that the kernel hands over beside it."""
    data, ancillary, _, _ = sock.recvmsg(70_000, 100)
    for level, kind, value in ancillary:
        status, _, _, _, _, tci, tpid = struct.unpack("=IIIHHHH", value)
        assert (level, kind) == (SOL_PACKET, PACKET_AUXDATA)
        if status & VLAN_VALID:
            return data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
    return data


@pytest.mark.needs_root
async def test_what_the_host_itself_sends_at_the_interface_stays_out(
    short_dir: Path, veth: NetworkNamespace
) -> None:
    path = short_dir / "lan.bess"
    async with switch_with(OpenedIn(veth, RawListener("near")), BessListener(path)) as (switch, _):
        with veth.entered():
            far, near = open_raw("far"), open_raw("near")
        with Plugged(path) as guest, far, near:
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            near.send(solicitation(mac(1)))
            far.settimeout(scaled(10))
            while far.recv(2000) != solicitation(mac(1)):
                pass
            far.send(frame(BROADCAST, mac(2)))
            assert guest.receive(ours) == frame(BROADCAST, mac(2)), "and nothing before it"


@pytest.mark.needs_root
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "cause"), [("tap", "link"), ("raw", "guest")])
async def test_interface_that_goes_down_and_comes_up_keeps_its_port_until_it_is_deleted(
    short_dir: Path, veth: NetworkNamespace, kind: str, cause: str, engine: str
) -> None:
    path = short_dir / "lan.bess"
    uplink, name, other = RawListener("near"), "near", "far"
    if kind == "tap":
        uplink, name, other = TapListener("umltap"), "umltap", "umltap"
    veth.run("ip", "link", "set", "near", "down")
    listeners = (OpenedIn(veth, uplink), BessListener(path))
    async with switch_with(*listeners, engine=engine) as (switch, closed):
        with veth.entered():
            far = open_raw(other)
        with Plugged(path) as guest, far:
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            guest.sock.setblocking(False)

            def refused() -> int:
                return switch.snapshot().ports[1].drops.get(DropReason.REFUSED, 0)

            for number in range(1, 4):
                before = refused()
                guest.sock.send(frame(BROADCAST, mac(9)))
                wait_until(lambda: refused() > before, 10, "a frame that is refused")  # noqa: B023
                veth.run("ip", "link", "set", name, "up")
                pass_frame(far, guest.sock.fileno(), frame(BROADCAST, mac(number)))
                pass_frame(guest.sock, far.fileno(), frame(BROADCAST, mac(9)))
                veth.run("ip", "link", "set", name, "down")
            assert closed == []
            veth.run("ip", "link", "del", name)
            await wait_until_async(lambda: closed, 10, "the end of the port")
            assert [(end.port_no, end.kind, end.cause) for end in closed] == [(1, kind, cause)]
            assert [port.kind for port in switch.ports()] == ["bess"]


@pytest.mark.needs_root
@pytest.mark.parametrize("engine", ENGINES)
async def test_frame_that_is_too_long_is_counted(
    short_dir: Path, veth: NetworkNamespace, engine: str
) -> None:
    path = short_dir / "lan.bess"
    listeners = (OpenedIn(veth, RawListener("near")), BessListener(path))
    for name in ("near", "far"):
        veth.run("ip", "link", "set", name, "mtu", "65535")
    async with switch_with(*listeners, engine=engine, max_frame=1518) as (switch, _):
        with veth.entered():
            far = open_raw("far")
        with Plugged(path) as guest, far:
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            for size in (1519, 9000, 65_000):
                far.send(frame(BROADCAST, mac(1), size=size))
            far.send(frame(BROADCAST, mac(2), size=1518))
            assert guest.receive(ours) == frame(BROADCAST, mac(2), size=1518)
            assert switch.snapshot().ports[1].drops[DropReason.OVERSIZE] == 3


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["tap", "raw"])
async def test_switch_stops_under_load_and_leaves_the_interface_as_it_was(
    short_dir: Path, veth: NetworkNamespace, kind: str
) -> None:
    uplink: Listener = RawListener("near")
    if kind == "tap":
        veth.run("ip", "tuntap", "add", "dev", "umltap", "mode", "tap")
        uplink = TapListener("umltap")
    path = short_dir / "lan.bess"
    async with switch_with(OpenedIn(veth, uplink), BessListener(path)) as (switch, _):
        if kind == "tap":
            veth.run("ip", "link", "set", "umltap", "up")
        with veth.entered():
            far = open_raw("far" if kind == "raw" else "umltap")
        stop = threading.Event()
        details = ("ip", "-details", "link", "show", "near")

        def load() -> None:
            far.setblocking(True)
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    far.send(frame(BROADCAST, mac(1), size=1000))

        sender = threading.Thread(target=load)
        with Plugged(path) as guest, far:
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            sender.start()
            try:
                for _ in range(1000):
                    guest.receive(ours)
                assert ("promiscuity 1" in veth.run(*details)) == (kind == "raw")
                await switch.stop()
            finally:
                stop.set()
                sender.join()
    assert "promiscuity 0" in veth.run(*details)
    assert "state UP" in veth.run(*details)


@pytest.mark.needs_root
def test_interface_that_cannot_be_a_port_is_refused_with_the_reason(namespace: NetworkNamespace) -> None:
    with namespace.entered():
        with pytest.raises(TransportError, match="interface none: there is no such interface"):
            open_raw("none")
        with pytest.raises(TransportError, match="interface lo is no Ethernet interface"):
            open_raw("lo")


@pytest.mark.needs_plain_user
def test_plain_user_is_told_what_root_has_to_do() -> None:
    with pytest.raises(TransportError, match=r"interface lo: .* let root run: setcap cap_net_raw\+ep /"):
        open_raw("lo")
