"""Interfaces of the host as ports, in network namespaces of the tests: tap devices and packet sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.fake_guest import BROADCAST, frame, mac
from integration.peers.lan import bring_up, ping, shell
from integration.peers.namespace import NetworkNamespace, network_namespace
from integration.peers.uml_kernel import running_guest
from support.deadline import scaled, wait_until, wait_until_async
from support.require import require_program, unavailable
from umlab.daemon.switch import ServiceEvent, SessionClosed, SwitchService
from umlab.errors import TransportError
from umlab.guest.cmdline import BessNic
from umlab.switch.counters import DropReason
from umlab.switch.model import SwitchConfig
from umlab.transports.bess import BessListener
from umlab.transports.contract import Listener, SessionSink
from umlab.transports.raw import RawListener, open_raw
from umlab.transports.tap import TapListener, open_tap

pytestmark = pytest.mark.integration

HOST, GUEST = "10.77.0.1", "10.77.0.2"
#: Pings, each as soon as the one before it is answered.
LOAD = 500
#: struct tpacket_auxdata's PACKET_AUXDATA at SOL_PACKET, and its bit for a tag.
SOL_PACKET, PACKET_AUXDATA, VLAN_VALID = 263, 8, 1 << 4


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        yield made


@pytest.fixture
def veth(namespace: NetworkNamespace) -> NetworkNamespace:
    """Return a namespace with the two ends of a cable: ``near`` for a switch, ``far`` for its neighbour."""
    namespace.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
    for name in ("near", "far"):
        namespace.run("ip", "link", "set", name, "up")
    return namespace


class OpenedIn:
    """A listener that opens its interface in a namespace; the switch itself stays where it is."""

    def __init__(self, namespace: NetworkNamespace, listener: Listener) -> None:
        self._namespace = namespace
        self._listener = listener

    def __getattr__(self, name: str) -> Any:
        return getattr(self._listener, name)

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Open it there; see :class:`umlab.transports.contract.Listener`."""
        with self._namespace.entered():
            await self._listener.start(sink, kept)


@contextlib.asynccontextmanager
async def switch_with(
    *listeners: Any, max_frame: int = 9018
) -> AsyncIterator[tuple[SwitchService, list[SessionClosed]]]:
    """Run a switch; yield it and the ends of its sessions so far."""
    switch = SwitchService("lan", SwitchConfig(max_frame=max_frame), listeners)
    closed: list[SessionClosed] = []

    def keep(event: ServiceEvent) -> None:
        if isinstance(event, SessionClosed):
            closed.append(event)

    switch.subscribe(keep)
    await switch.start()
    try:
        yield switch, closed
    finally:
        await switch.stop()


class Plugged:
    """A guest without a kernel, on a bess socket; only its own frames and those of our tests count."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(scaled(10))
        self.sock.connect(str(path))

    def __enter__(self) -> Plugged:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def receive(self, wanted: Callable[[bytes], bool]) -> bytes:
        """Return the next frame that is wanted."""
        while True:
            data = self.sock.recv(70_000)
            if wanted(data):
                return data


def ours(data: bytes) -> bool:
    """Tell our tests' frames from what kernels say by themselves."""
    return data[6:11] == mac(0)[:5]


def waiting(fd: int) -> list[bytes]:
    """Return the frames that are there already."""
    frames = []
    with contextlib.suppress(BlockingIOError):
        while True:
            frames.append(os.read(fd, 2000))
    return frames


def pass_frame(sender: socket.socket, fd: int, data: bytes) -> None:
    """Send a frame until it comes out: what an interface is told before it is really up is dropped."""

    def passes() -> bool:
        with contextlib.suppress(OSError):
            sender.send(data)
        return data in waiting(fd)

    wait_until(passes, 10, "a frame")


def solicitation(source: bytes) -> bytes:
    """Return an IPv6 router solicitation."""
    head = b"\x33\x33\0\0\0\2" + source + struct.pack("!HIHBB", 0x86DD, 6 << 28, 8, 58, 255)
    return head + bytes(15) + b"\1" + b"\xff\2" + bytes(13) + b"\2" + struct.pack("!BBHI", 133, 0, 0, 0)


def is_solicitation(data: bytes) -> bool:
    return data[12:14] == b"\x86\xdd" and data[20:21] == b"\x3a" and data[54:55] == b"\x85"


# With a real guest.


@pytest.mark.needs_root
@pytest.mark.parametrize("kind", ["tap", "raw"])
async def test_host_and_guest_reach_each_other_under_load_until_the_interface_is_deleted(
    short_dir: Path, namespace: NetworkNamespace, kind: str
) -> None:
    busybox = str(require_program("busybox"))
    uplink: Listener = TapListener("near")
    device = "near"
    if kind == "raw":
        namespace.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far")
        namespace.run("ip", "link", "set", "near", "up")
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
async def test_guest_that_opens_a_tap_by_itself_meets_the_switch_on_the_other_side(
    short_dir: Path, namespace: NetworkNamespace
) -> None:
    namespace.run("ip", "tuntap", "add", "dev", "umltap", "mode", "tap")
    namespace.run("ip", "link", "set", "umltap", "up")
    path = short_dir / "lan.bess"
    uplink = RawListener("umltap")
    async with contextlib.AsyncExitStack() as stack:
        switch, closed = await stack.enter_async_context(
            switch_with(OpenedIn(namespace, uplink), BessListener(path))
        )
        (argument,) = uplink.arguments
        assert (argument.program, argument.needs) == ("uml", "tap")
        with namespace.entered():
            there = await stack.enter_async_context(
                running_guest(short_dir, "there", extra=(argument.text,), writable=("/dev/net/tun",))
            )
        here = await stack.enter_async_context(running_guest(short_dir, "here", nics=(BessNic(str(path)),)))
        await bring_up(there, "vec0", HOST)
        await bring_up(here, "vec0", GUEST)
        await asyncio.gather(
            *(shell(guest, f"ping -q -A -c 300 -W 10 {to}") for guest, to in ((there, GUEST), (here, HOST)))
        )
        assert len(switch.fdb()) == 2
        assert closed == []


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
        veth.run("ip", "link", "add", "bridge", "type", "bridge", "mcast_snooping", "0")
        for name in ("umltap", "near"):
            veth.run("ip", "link", "set", name, "master", "bridge")
            veth.run("ip", "link", "set", name, "up")
        veth.run("ip", "link", "set", "bridge", "up")
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
async def test_frames_pass_a_packet_socket_byte_by_byte_with_their_tags(
    short_dir: Path, veth: NetworkNamespace
) -> None:
    path = short_dir / "lan.bess"
    tags = ("", "8100 0065", "8100 e000", "88a8 0064 8100 0065", "8100 0001 8100 0002")
    async with switch_with(OpenedIn(veth, RawListener("near")), BessListener(path)) as (switch, _):
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
                    # To nobody known: only who is promiscuous has it.
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
async def test_interface_that_goes_down_and_comes_up_keeps_its_port(
    short_dir: Path, veth: NetworkNamespace
) -> None:
    path = short_dir / "lan.bess"
    veth.run("ip", "link", "set", "near", "down")
    async with switch_with(OpenedIn(veth, RawListener("near")), BessListener(path)) as (switch, closed):
        with veth.entered():
            far = open_raw("far")
        with Plugged(path) as guest, far:
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            guest.sock.setblocking(False)

            def refused() -> int:
                return switch.snapshot().ports[1].drops.get(DropReason.REFUSED, 0)

            for number in range(1, 4):
                before = refused()
                guest.sock.send(frame(BROADCAST, mac(9)))
                wait_until(lambda: refused() > before, 10, "a frame that is refused")  # noqa: B023
                veth.run("ip", "link", "set", "near", "up")
                pass_frame(far, guest.sock.fileno(), frame(BROADCAST, mac(number)))
                pass_frame(guest.sock, far.fileno(), frame(BROADCAST, mac(9)))
                veth.run("ip", "link", "set", "near", "down")
            assert closed == []
            veth.run("ip", "link", "del", "near")
            await wait_until_async(lambda: closed, 10, "the end of the port")
            assert (closed[0].kind, closed[0].cause) == ("raw", "guest")


@pytest.mark.needs_root
async def test_frame_that_is_too_long_is_counted(short_dir: Path, veth: NetworkNamespace) -> None:
    path = short_dir / "lan.bess"
    for name in ("near", "far"):
        veth.run("ip", "link", "set", name, "mtu", "65535")
    async with switch_with(OpenedIn(veth, RawListener("near")), BessListener(path), max_frame=1518) as (
        switch,
        _,
    ):
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
                await switch.stop()
            finally:
                stop.set()
                sender.join()
    details = veth.run("ip", "-details", "link", "show", "near")
    assert "promiscuity 0" in details
    assert "state UP" in details


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


# Across processes.


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


class Cabled:
    """``umlab switch run`` in a user and a network namespace of its own, where it may do what root may.

    There is a cable in it whose other end, ``far``, has an address.
    """

    def __init__(self, path: Path) -> None:
        script = (
            "ip link add near type veth peer name far && ip addr add 10.77.0.1/24 dev far && "
            'ip link set far up && ip link set near up && exec "$0" "$@"'
        )
        umlab = Path(sys.executable).with_name("umlab")
        run = (
            str(umlab),
            "switch",
            "run",
            "lan",
            "--listen",
            f"bess:{path}",
            "--listen",
            "raw:near",
            "--json",
        )
        search = os.pathsep.join((os.environ.get("PATH", os.defpath), str(require_program("ip").parent)))
        self.process = subprocess.Popen(
            ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script, *run],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PATH": search, "XDG_RUNTIME_DIR": str(path.parent)},
        )

    def wait_for(self, *events: str) -> None:
        """Read records until each event has come."""
        assert self.process.stdout is not None
        left = list(events)
        for line in self.process.stdout:
            event = json.loads(line)["event"]
            if event in left:
                left.remove(event)
            if not left:
                return
        assert self.process.stderr is not None
        reason = self.process.stderr.read()
        if "unshare" in reason:
            unavailable(f"no user namespace can be had: {reason.strip()}")
        raise AssertionError(f"no {left}: {reason}")


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
        me, nobody = mac(1), bytes(6)
        addresses = socket.inet_aton(GUEST), socket.inet_aton(HOST)
        request = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, me, addresses[0], nobody, addresses[1])
        guest.sock.send((BROADCAST + me + b"\x08\x06" + request).ljust(60, b"\0"))
        host = guest.receive(lambda data: data[:6] == me and data[12:14] == b"\x08\x06")[6:12]
        for begin in range(0, 1000, 10):
            numbers = range(begin, begin + 10)
            for number in numbers:
                guest.sock.send(host + me + b"\x08\x00" + echo(8, number, *addresses))
            for number in numbers:
                answer = guest.receive(lambda data: data[:6] == me and data[12:14] == b"\x08\x00")
                # The identification and the checksum of the IP header are the host's.
                assert answer[34:] == echo(0, number, *addresses)[20:]


def echo(kind: int, number: int, source: bytes, destination: bytes) -> bytes:
    """Return an IPv4 packet with an ICMP echo request (8) or its answer (0)."""
    message = struct.pack("!BBHHH", kind, 0, 0, 7, number) + bytes(1000)
    message = message[:2] + _checksum(message) + message[4:]
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 0, 0, 64, 1, 0) + source + destination
    return head[:10] + _checksum(head) + head[12:] + message


def _checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF)
