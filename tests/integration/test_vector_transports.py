"""Guests on l2tpv3, gre and bess beside one on the daemon transport: under load, garbage and reboots."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab, TypedShell, bess_guest
from integration.peers.lan import shell
from integration.peers.typed_guest import INIT, typed_guest
from integration.peers.uml_kernel import debian_kernel, running_guest, vector_kernel
from support.deadline import scaled, wait_until, wait_until_async
from support.qemu_guest import running_guest as running_qemu_guest
from support.require import require_program
from umlab.daemon.switch import ServiceEvent, SessionClosed, SessionRefused, SwitchService
from umlab.guest.cmdline import BessNic, DaemonNic
from umlab.guest.inside import cpio
from umlab.switch.counters import DropReason
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import Listener
from umlab.transports.registry import parse_listen
from umlab.wire import gre, l2tpv3

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

#: Runs a command in a guest, which must succeed, and returns its output.
Shell = Callable[[str], Awaitable[str]]

#: A guest with several NICs on one segment answers for each on that one alone.
STRICT_ARP = "cd /proc/sys/net/ipv4/conf/all && echo 1 >arp_ignore && echo 2 >arp_announce"


def free_ports(count: int) -> list[int]:
    """Return UDP ports of the loopback address that nobody has now."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def vector_nics(listeners: list[Listener]) -> tuple[str, ...]:
    """Return what a kernel is told to have one vector NIC on each of these, ``vec0`` on the first."""
    told = [next(each.text for each in listener.arguments if each.program == "uml") for listener in listeners]
    return tuple(text.replace("vec0", f"vec{number}", 1) for number, text in enumerate(told))


def typed_root(folder: Path) -> Path:
    """Write an initramfs for a guest that is typed to."""
    busybox = require_program("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    members = [
        *(cpio.directory(name) for name in ("bin", "dev", "proc", "root", "sys", "tmp")),
        cpio.file("bin/busybox", busybox.read_bytes(), 0o755),
        *(cpio.symlink(f"bin/{applet}", "busybox") for applet in applets if applet != "busybox"),
        cpio.file("init", INIT.encode(), 0o755),
        cpio.character_device("dev/console", 5, 1),
    ]
    path = folder / "typed.cpio"
    path.write_bytes(cpio.serialize_archive(members))
    return path


@asynccontextmanager
async def switch_on(listeners: list[Listener]) -> AsyncIterator[tuple[SwitchService, list[ServiceEvent]]]:
    """Run a switch, and keep its events."""
    switch = SwitchService("lan", SwitchConfig(), listeners)
    events: list[ServiceEvent] = []
    switch.subscribe(events.append)
    await switch.start()
    try:
        yield switch, events
    finally:
        await switch.stop()


async def connect(vector: Shell, old: Shell, count: int) -> None:
    """Give two guests addresses and have them ping each other: 10.0.N.2 on ``vecN``, 10.0.N.1 on ``eth0``."""
    await vector(STRICT_ARP)
    await old("ip link set eth0 up")
    for number in range(count):
        await old(f"ip addr add 10.0.{number}.1/24 dev eth0")
        await vector(f"ip addr add 10.0.{number}.2/24 dev vec{number} && ip link set vec{number} up")
        # What only names a peer goes no further.
        await vector(f"ping -A -c 1 -W 10 10.0.{number}.1")
        await ping(vector, f"10.0.{number}.1")
        await ping(old, f"10.0.{number}.2")


async def ping(guest: Shell, address: str) -> None:
    """Let a guest ping an address; every ping must be answered."""
    assert "3 packets transmitted, 3 packets received" in await guest(f"ping -A -c 3 -W 10 {address}")


async def serve_file(guest: Shell) -> str:
    """Let a guest offer three MiB of anything over HTTP, and return their sum."""
    await guest("dd if=/dev/urandom of=/tmp/data bs=64k count=48 2>/dev/null")
    await guest("busybox httpd -p 8000 -h /tmp")
    return (await guest("md5sum </tmp/data")).split()[0]


async def fetched(guest: Shell, address: str) -> str:
    """Let a guest fetch what another one offers, and return its sum."""
    return (await guest(f"busybox wget -q -O - http://{address}:8000/data | md5sum")).split()[0]


@contextmanager
def flood(targets: list[tuple[str, int]], message: bytes) -> Iterator[None]:
    """Send garbage to all targets as fast as it goes, from an address that nobody has named."""
    ends = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            while not ends.wait(0.001):
                for target in targets * 10:
                    sock.sendto(message, target)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


@pytest.mark.parametrize("kernel", [debian_kernel, pytest.param(vector_kernel, marks=pytest.mark.slow)])
async def test_guests_on_udp_tunnels_reach_one_on_the_daemon_transport_under_load_and_garbage(
    short_dir: Path, kernel: Callable[[], str | None]
) -> None:
    if kernel() is None:
        pytest.skip("there is no newer kernel; run `make kernel`")
    named, theirs, awaited = free_ports(3)
    ours = f"src=127.0.0.1,srcport={named}"
    vectors = [
        parse_listen(
            f"l2tpv3:{ours},dst=127.0.0.1,dstport={theirs},rx_session=0x90000001,tx_session=2"
            ",rx_cookie=0x01020304,tx_cookie=0xf5060708"
        ),
        parse_listen(
            f"l2tpv3:src=127.0.0.1,srcport={awaited},rx_session=3,tx_session=4"
            ",rx_cookie=0xf102030405060708,tx_cookie=9,cookie64=1,counter=1"
        ),
    ]
    nic = DaemonNic(str(short_dir / "lan.ctl"))
    async with (
        switch_on([parse_listen(f"daemon:{nic.control_path}"), *vectors]) as (switch, events),
        running_guest(short_dir, "vector", kernel=kernel(), extra=vector_nics(vectors)) as vector_guest,
        running_guest(short_dir, "old", nics=(nic,)) as old_guest,
    ):
        vector, old = partial(shell, vector_guest), partial(shell, old_guest)
        await connect(vector, old, 2)
        assert sorted(port.kind for port in switch.ports()) == ["daemon", "l2tpv3", "l2tpv3"]

        old_sum, vector_sum = await serve_file(old), await serve_file(vector)
        assert not [event for event in events if isinstance(event, SessionRefused)]
        with flood([("127.0.0.1", named), ("127.0.0.1", awaited)], b"\0\3\0\0" + bytes(60)):
            assert await fetched(vector, "10.0.1.1") == old_sum
            assert await fetched(old, "10.0.0.2") == vector_sum
        (refused,) = [event for event in events if isinstance(event, SessionRefused)]
        assert "refused: session 0" in str(refused.error)
        assert not any(counters.drops for counters in switch.snapshot().ports.values())

        # From where the peer sends, while it does not: without its session or cookie, or too short.
        await vector("ip link set vec0 down")
        header = l2tpv3.serialize_header(0x90000001, b"\1\2\3\4", udp=True)
        bad = [
            l2tpv3.serialize_header(0x90000001, b"\1\2\3\5", udp=True) + bytes(60),
            l2tpv3.serialize_header(0x90000002, b"\1\2\3\4", udp=True) + bytes(60),
            header[:11],
            b"",
        ]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as spoofer:
            spoofer.bind(("127.0.0.1", theirs))
            for message in bad:
                spoofer.sendto(message, ("127.0.0.1", named))
            spoofer.sendto(header + bytes(5), ("127.0.0.1", named))
            (port_no,) = (port.port_no for port in switch.ports() if port.detail == f"127.0.0.1:{theirs}")

            def drops() -> dict[DropReason, int]:
                return switch.snapshot().ports[port_no].drops

            await wait_until_async(lambda: drops().get(DropReason.RUNT), 10, "the last of them")
        assert drops() == {DropReason.BAD_HEADER: len(bad), DropReason.RUNT: 1}
        await ping(vector, "10.0.1.1")
        await old("ping -c 1 -W 1 10.0.0.2 || true")  # nobody is there
        await vector("ip link set vec0 up")
        await ping(vector, "10.0.0.1")
        await ping(old, "10.0.0.2")


async def test_qemu_speaks_with_itself_through_two_tunnels(short_dir: Path) -> None:
    """One of its NICs is in a network namespace of the guest's, so that there is no other way."""
    named, theirs, awaited = free_ports(3)
    places = (
        f"src=127.0.0.1,srcport={named},dst=127.0.0.1,dstport={theirs},rx_session=0x90000001,tx_session=2"
        ",rx_cookie=0x01020304,tx_cookie=0xf5060708",
        f"src=127.0.0.1,srcport={awaited},rx_session=3,tx_session=4"
        ",rx_cookie=0xf102030405060708,tx_cookie=9,cookie64=1,counter=1",
    )
    listeners = [parse_listen(f"l2tpv3:{place}") for place in places]
    told = [each.text for listener in listeners for each in listener.arguments if each.program == "qemu"]

    def speak() -> None:
        with running_qemu_guest(short_dir, told) as guest:
            guest.run("unshare -n sh -c 'echo >/up; exec sleep 1000' & echo $! >/away")
            guest.run("until [ -e /up ]; do sleep 0.1; done")
            guest.run("ip link set eth1 netns $(cat /away)")
            guest.run("ip addr add 10.0.0.1/24 dev eth0 && ip link set eth0 up")
            away = "nsenter -n -t $(cat /away)"
            guest.run(f"{away} ip addr add 10.0.0.2/24 dev eth1 && {away} ip link set eth1 up")
            # What only names a peer goes no further.
            guest.run(f"{away} ping -A -c 1 -W 10 10.0.0.1")
            assert "50 packets received" in guest.run("ping -A -c 50 -s 1400 -W 10 10.0.0.2")

    async with switch_on(listeners) as (switch, _):
        await asyncio.to_thread(speak)
        assert next(port.detail for port in switch.ports()) == f"127.0.0.1:{theirs}"
        ports = switch.snapshot().ports
        assert len(ports) == 2
        assert not any(DropReason.BAD_HEADER in port.drops for port in ports.values())
        assert min(port.rx_frames for port in ports.values()) >= 50


@pytest.mark.needs_root
async def test_guests_on_raw_tunnels_reach_one_on_the_daemon_transport(short_dir: Path) -> None:
    # Every raw socket of an address sees all that comes there: so each run has addresses of its own.
    net = f"127.{os.getpid() >> 8 & 0xFF}.{os.getpid() & 0xFF}"
    vectors = [
        parse_listen(f"gre:src={net}.1,dst={net}.2,rx_key=0xfffffffe,tx_key=7,sequence=1"),
        parse_listen(f"gre:src={net}.3,dst={net}.4"),
        parse_listen(
            f"l2tpv3:src={net}.5,dst={net}.6,udp=0,rx_session=1,tx_session=2,rx_cookie=5,tx_cookie=6"
        ),
    ]
    nic = DaemonNic(str(short_dir / "lan.ctl"))
    vector_words = ("umid=vector", "mem=128M", f"initrd={typed_root(short_dir)}")
    async with (
        switch_on([parse_listen(f"daemon:{nic.control_path}"), *vectors]) as (switch, _),
        # Our own guests have no privileges.
        typed_guest(short_dir, *vector_words, *vector_nics(vectors)) as typed,
        running_guest(short_dir, "old", nics=(nic,)) as old_guest,
    ):
        vector, old = typed.type, partial(shell, old_guest)
        await vector("mount -t devtmpfs devtmpfs /dev")
        await connect(vector, old, len(vectors))
        old_sum, vector_sum = await serve_file(old), await serve_file(vector)
        assert await fetched(vector, "10.0.0.1") == old_sum
        assert await fetched(old, "10.0.2.2") == vector_sum
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, gre.IP_PROTOCOL) as spoofer:
            spoofer.bind((f"{net}.2", 0))
            for header in (
                gre.serialize_header(8, sequence=True),
                gre.serialize_header(None, sequence=False),
            ):
                spoofer.sendto(header + bytes(64), (f"{net}.1", 0))
            spoofer.sendto(gre.serialize_header(0xFFFFFFFE, sequence=True), (f"{net}.1", 0))
        (port_no,) = (port.port_no for port in switch.ports() if port.detail == f"{net}.2")
        counters = switch.snapshot().ports
        await wait_until_async(
            lambda: switch.snapshot().ports[port_no].drops == {DropReason.BAD_HEADER: 3}, 10, "three drops"
        )
        assert not any(each.drops for number, each in counters.items() if number != port_no)
        await ping(vector, "10.0.0.1")


async def test_guest_with_two_bess_nics_that_reboots_and_connects_at_once_has_two_ports(
    short_dir: Path,
) -> None:
    """It keeps its process and the sockets of the boot before, whose interfaces were up."""
    nic = BessNic(str(short_dir / "lan.bess"))
    async with (
        switch_on([parse_listen(f"bess:{nic.path}")]) as (switch, events),
        running_guest(short_dir, nics=(nic, nic)) as guest,
    ):
        both = "ip link set vec0 up && ip link set vec1 up"
        await shell(guest, both)
        await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
        for _ in range(2):
            events.clear()
            await guest.reboot(scaled(30))
            await shell(guest, both)

            def closed() -> list[tuple[str, str]]:
                return [(each.kind, each.cause) for each in events if isinstance(each, SessionClosed)]

            await wait_until_async(lambda: len(closed()) == 2, 10, "the end of the old boot's ports")
            assert closed() == [("bess", "retired")] * 2
            await wait_until_async(lambda: len(switch.ports()) == 2, 10, "two ports")
            assert {port.peer and port.peer.boot for port in switch.ports()} == {guest.guest.boot}


def test_our_guest_stays_quiet_when_its_port_and_its_switch_go() -> None:
    """A UML kernel reads the end of a bess connection for ever, unless its interface is down by then."""
    with BackgroundLab(guests=(bess_guest("lan"),)) as lab:
        lab.wait_ready()
        typed = TypedShell(lab, "right")

        def remove_port() -> None:
            (port,) = lab.client.ports("lan")
            assert lab.client.remove_port("lan", port.port_no).changed
            wait_until(lambda: not lab.client.ports("lan"), 10, "no port")

        def remove_switch() -> None:
            assert lab.client.remove_switch("lan").changed

        for remove in (remove_port, remove_switch):
            typed.ask("ip link set vec0 up")
            (port,) = wait_until(lambda: lab.client.ports("lan"), 10, "its port")
            assert port.guest == "right"
            remove()
            assert port.pid is not None
            used = spent_in_a_second(port.pid)
            assert used < 0.1, f"{used} s of processor time in a second"
            assert "<BROADCAST,MULTICAST>" in typed.ask("ip link show vec0"), "it is down"


def spent_in_a_second(pid: int) -> float:
    """Return how many seconds of processor time a process uses in a second, the least of three."""
    spans = []
    for _ in range(3):
        before = processor_time(pid)
        time.sleep(1 / 3)
        spans.append((processor_time(pid) - before) * 3)
    return min(spans)


def processor_time(pid: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
