"""VDE's own programs, QEMU and real guests on our switch as on a vde_switch, both ways and under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab
from integration.peers.lan import bring_up, ping, shell
from integration.peers.namespace import network_namespace
from integration.peers.uml_kernel import running_guest, vector_kernel
from integration.peers.vde_program import (
    EXPERIMENTAL,
    VdePlug,
    exchange,
    meet,
    running,
    vde_directory,
    vde_plug,
    wait_ports,
)
from support.deadline import scaled, wait_until_async
from support.require import require_program
from umlab.daemon.switch import SwitchService
from umlab.guest.cmdline import DaemonNic
from umlab.transports.contract import Access
from umlab.transports.tap import open_tap
from umlab.transports.vde import VdeListener

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

BROADCAST = b"\xff" * 6
ARP, IPV4 = b"\x08\x06", b"\x08\x00"
#: Frames each way where a test loads a path.
LOAD = 3000
#: Frames that fit between two programs that a pipe of 64 KiB joins: full both ways, they wait for each other.
PIPE_WINDOW = 20


@pytest.fixture
async def switch(short_dir: Path) -> AsyncIterator[SwitchService]:
    async with vde_directory(short_dir / "sw") as service:
        yield service


@pytest.fixture
def directory(short_dir: Path) -> Path:
    return short_dir / "sw"


def names_in(directory: Path) -> list[str]:
    """Return the names of sockets, without what follows the port's number."""
    return sorted(each.name.partition(".")[0] for each in directory.iterdir())


async def test_vde_plugs_talk_both_ways_and_under_load(directory: Path, switch: SwitchService) -> None:
    async with vde_plug(directory, "--descr", "left") as left, vde_plug(f"vde://{directory}[7]") as right:
        ports = await wait_ports(switch, 2)
        assert {(port.port_no, port.kind) for port in ports} == {(1, "vde"), (7, "vde")}
        for port, plug, words in zip(ports, (left, right), ("left user=", "vdeplug: user="), strict=True):
            assert port.detail.startswith(words)
            assert port.detail.endswith(f"pid={plug.process.pid}")
            assert port.peer is not None
            assert port.peer.pid == plug.process.pid
        # Each plug removes its own socket; ours are named after the ports.
        await wait_until_async(lambda: names_in(directory) == ["001", "007", "ctl"], 10, "our sockets alone")
        await meet(left, right)
        await exchange(left, right, LOAD)
        drops = [sum(port.drops.values()) for port in switch.snapshot().ports.values()]
        assert drops == [0, 0]
    await wait_ports(switch, 0)
    assert list(directory.iterdir()) == [directory / "ctl"]


async def test_client_that_is_stopped_loses_its_own_frames_alone(
    directory: Path, switch: SwitchService
) -> None:
    async with vde_plug(directory) as left, vde_plug(directory) as right, vde_plug(directory) as stopped:
        await wait_ports(switch, 3)
        await meet(left, right, stopped)
        stopped.process.send_signal(signal.SIGSTOP)
        for number in range(1, LOAD):
            await left.send(left.frame(BROADCAST, number, 1400))
            if not number % PIPE_WINDOW:
                await right.hear(left.frame(BROADCAST, number, 1400))
        by_pid = {port.peer.pid: port.port_no for port in switch.ports() if port.peer}
        dropped = {
            plug: sum(switch.snapshot().ports[by_pid[plug.process.pid]].drops.values())
            for plug in (left, right, stopped)
        }
        assert (dropped[left], dropped[right]) == (0, 0)
        assert 0 < dropped[stopped] < LOAD
        stopped.process.send_signal(signal.SIGCONT)
        await meet(left, stopped)


async def test_clients_outlive_a_daemon() -> None:
    with BackgroundLab(listen=("vde",)) as lab:
        directory = lab.runtime / "lan.vde"
        async with vde_plug(f"{directory}[5]") as left, vde_plug(directory) as right:
            await wait_until_async(lambda: len(lab.client.ports("lan")) == 2, 20, "two ports")
            await meet(left, right)
            lab.kill_daemon()
            lab.start()
            assert [port.port_no for port in lab.client.ports("lan")] == [1, 5]
            await exchange(left, right, LOAD // 10)
            async with vde_plug(directory) as new:
                await meet(left, new)
            await wait_until_async(lambda: names_in(directory) == ["001", "005", "ctl"], 10, "its end")
        await wait_until_async(lambda: names_in(directory) == ["ctl"], 10, "the others' end")
    assert not directory.exists()


async def test_port_that_is_taken_gives_another_and_one_out_of_range_gives_none(
    directory: Path, switch: SwitchService
) -> None:
    async with vde_plug(f"{directory}[7]"):
        await wait_ports(switch, 1)
        async with vde_plug(f"{directory}[7]"):
            assert [port.port_no for port in await wait_ports(switch, 2)] == [1, 7]
        async with vde_plug(f"{directory}[70000]") as refused:
            async with asyncio.timeout(scaled(10)):
                assert await refused.process.wait() != 0
        assert [port.port_no for port in await wait_ports(switch, 1)] == [7]


async def test_dpipe_joins_two_switches_of_ours(
    short_dir: Path, directory: Path, switch: SwitchService
) -> None:
    program = require_program("dpipe"), require_program("vde_plug")
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(vde_directory(short_dir / "other"))
        stack.enter_context(running(program[0], program[1], directory, "=", program[1], short_dir / "other"))
        left = await stack.enter_async_context(vde_plug(directory))
        right = await stack.enter_async_context(vde_plug(short_dir / "other"))
        await wait_ports(switch, 2)
        await wait_ports(other, 2)
        await meet(left, right)
        await exchange(left, right, LOAD, window=PIPE_WINDOW)


async def test_wirefilter_joins_two_switches_of_ours(
    short_dir: Path, directory: Path, switch: SwitchService
) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(vde_directory(short_dir / "other"))
        stack.enter_context(running(require_program("wirefilter"), "-v", f"{directory}:{short_dir}/other"))
        left = await stack.enter_async_context(vde_plug(directory))
        right = await stack.enter_async_context(vde_plug(short_dir / "other"))
        await wait_ports(switch, 2)
        await wait_ports(other, 2)
        await meet(left, right)
        await exchange(left, right, LOAD // 3)


@pytest.mark.parametrize("wire", ["dpipe", "wirefilter"])
async def test_vde_switch_and_ours_are_one_network(
    short_dir: Path, directory: Path, switch: SwitchService, wire: str
) -> None:
    theirs = short_dir / "theirs"
    async with AsyncExitStack() as stack:
        stack.enter_context(running(require_program("vde_switch"), "-s", theirs))
        await wait_until_async((theirs / "ctl").exists, 10, "vde_switch")
        plug = require_program("vde_plug")
        words = {
            "dpipe": (require_program("dpipe"), plug, directory, "=", plug, theirs),
            "wirefilter": (require_program("wirefilter"), "-v", f"{theirs}:{directory}"),
        }
        stack.enter_context(running(*words[wire]))
        left = await stack.enter_async_context(vde_plug(directory))
        right = await stack.enter_async_context(vde_plug(theirs))
        await wait_ports(switch, 2)
        await meet(left, right)
        await exchange(left, right, LOAD // 3, window=PIPE_WINDOW)


# slirpvde: a network behind a program.


def arp(plug: VdePlug, own: bytes, wanted: bytes) -> bytes:
    """Return a question for the owner of an address."""
    head = BROADCAST + plug.mac + ARP + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return (head + plug.mac + own + bytes(6) + wanted).ljust(60, b"\0")


def dhcp_discover(plug: VdePlug, number: int) -> bytes:
    """Return a question for any address."""
    bootp = struct.pack("!BBBBIHH16x6s202x", 1, 1, 6, 0, number, 0, 0x8000, plug.mac)
    bootp += bytes.fromhex("63825363 350101 ff")
    udp = struct.pack("!HHHH", 68, 67, 8 + len(bootp), 0) + bootp
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    return BROADCAST + plug.mac + IPV4 + head + udp


async def answer(plug: VdePlug, question: bytes, kind: bytes) -> bytes:
    """Ask until there is an answer to this plug, and return it."""
    for _ in range(100):
        await plug.send(question)
        try:
            async with asyncio.timeout(scaled(0.2)):
                while (frame := await plug.receive())[12:14] != kind:
                    pass
            return frame
        except TimeoutError:
            continue
    raise TimeoutError("no answer")


async def test_slirpvde_answers_arp_and_dhcp(directory: Path, switch: SwitchService) -> None:
    with running(require_program("slirpvde"), "-s", directory, "-D"):
        async with vde_plug(directory) as plug:
            await wait_ports(switch, 2)
            gateway, own = bytes((10, 0, 2, 2)), bytes((10, 0, 2, 15))
            reply = await answer(plug, arp(plug, own, gateway), ARP)
            assert (reply[20:22], reply[28:32], reply[32:42]) == (b"\0\2", gateway, plug.mac + own)
            offer = await answer(plug, dhcp_discover(plug, 0x5EED), IPV4)
            assert offer[34:38] == struct.pack("!HH", 67, 68)
            assert offer[42] == 2, "a reply"
            assert offer[46:50] == struct.pack("!I", 0x5EED)
            assert offer[58:61] == bytes((10, 0, 2)), "an address of its network"
            assert bytes.fromhex("350102") in offer[282:], "an offer"


# Devices of a host, in a network namespace of the test's own.


@pytest.mark.needs_root
async def test_vde_plug2tap_brings_a_host_onto_the_switch(directory: Path, switch: SwitchService) -> None:
    with ExitStack() as stack:
        namespace = stack.enter_context(network_namespace())
        with namespace.entered():
            program = running(require_program("vde_plug2tap"), "-s", directory, "umltap")
            stack.enter_context(program)
        await wait_ports(switch, 1)
        namespace.run("ip", "addr", "add", "10.77.0.1/24", "dev", "umltap")
        namespace.run("ip", "link", "set", "umltap", "up")
        async with vde_plug(directory) as plug:
            host, own = bytes((10, 77, 0, 1)), bytes((10, 77, 0, 9))
            reply = await answer(plug, arp(plug, own, host), ARP)
            assert (reply[20:22], reply[28:32], reply[32:42]) == (b"\0\2", host, plug.mac + own)


@pytest.mark.needs_root
async def test_vde_pcapplug_brings_an_interface_onto_the_switch(
    directory: Path, switch: SwitchService
) -> None:
    with ExitStack() as stack:
        namespace = stack.enter_context(network_namespace())
        with namespace.entered():
            tap = open_tap("umltap")
            stack.callback(os.close, tap)
            namespace.run("ip", "link", "set", "umltap", "up")
            stack.enter_context(running(require_program("vde_pcapplug"), "-s", directory, "umltap"))
        async with vde_plug(directory) as plug:
            await wait_ports(switch, 2)
            station = b"\x02\xee\0\0\0\1"
            spoken = (plug.mac + station + b"\x88\xb5out").ljust(1400, b"\0")
            heard = plug.frame(station, 1)

            def is_heard() -> bool:
                frames = []
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frames.append(os.read(tap, 2000))
                return heard in frames

            speaking = asyncio.ensure_future(plug.receive_from(station))
            # It has a port before it listens to the interface, and reads from that by the 256 KiB.
            while not speaking.done():
                for _ in range(100):
                    os.write(tap, spoken)
                await asyncio.wait([speaking], timeout=0.1)
            assert await speaking == spoken
            await plug.send(heard)
            await wait_until_async(is_heard, 10, "the frame on the interface")


# Machines.


async def test_qemu_gets_an_address_from_slirpvde(directory: Path, switch: SwitchService) -> None:
    """Its boot ROM asks for any address, and once it has heard an offer for that one."""
    qemu = [
        *(require_program("qemu-system-x86_64"), "-nodefaults", "-display", "none", "-m", "64"),
        *("-netdev", f"vde,id=n0,sock={directory},port=9"),
        *("-device", "virtio-net-pci,netdev=n0,mac=52:54:00:00:00:09"),
    ]
    mac = bytes.fromhex("525400000009")
    async with vde_plug(directory) as plug:
        with running(require_program("slirpvde"), "-s", directory, "-D"), running(*qemu):
            (port,) = [port for port in await wait_ports(switch, 3) if port.port_no == 9]
            assert port.detail.startswith("QEMU user=")
            for kind in ("350101", "350103"):
                while bytes.fromhex(kind) not in await plug.receive_from(mac, IPV4):
                    pass


#: A program with the option that vdeq gives to a QEMU of its time; it sends every frame back to its sender.
MIRROR = """\
#!{python}
import socket, sys
if "-h" not in sys.argv:
    sock = socket.socket(fileno=int(sys.argv[sys.argv.index("-tun-fd") + 1]))
    while frame := sock.recv(2000):
        sock.send(frame[6:12] + frame[:6] + frame[12:])
"""


async def test_vdeq_attaches_a_machine_of_its_time(
    short_dir: Path, directory: Path, switch: SwitchService
) -> None:
    """Today's QEMU refuses the options that vdeq gives it, and needs no vdeq."""
    machine = short_dir / "qemu"
    machine.write_text(MIRROR.format(python=sys.executable))
    machine.chmod(0o755)
    with running(require_program("vdeq"), machine, "-sock", directory):
        async with vde_plug(directory) as plug:
            await wait_ports(switch, 2)
            station = b"\x02\xee\0\0\0\2"
            question = plug.frame(station, 5)
            assert await answer(plug, question, EXPERIMENTAL) == plug.mac + station + question[12:]


async def test_guests_on_vde_and_on_the_daemon_transport_reach_each_other_and_slirpvde(
    directory: Path, switch: SwitchService, short_dir: Path
) -> None:
    async with AsyncExitStack() as stack:
        stack.enter_context(running(require_program("slirpvde"), "-s", directory, "-D"))
        # The kernel starts vde_plug, whose own socket is in the switch's directory.
        left, right = await asyncio.gather(
            stack.enter_async_context(
                running_guest(short_dir, "left", extra=(f"eth0=vde,{directory}",), writable=(str(directory),))
            ),
            stack.enter_async_context(
                running_guest(short_dir, "right", nics=(DaemonNic(str(directory / "ctl")),))
            ),
        )
        await wait_ports(switch, 3)
        await bring_up(left, "eth0", "10.0.2.20")
        await bring_up(right, "eth0", "10.0.2.21")
        await ping(left, "10.0.2.21")
        await ping(right, "10.0.2.20")
        await ping(left, "10.0.2.2")
        await ping(right, "10.0.2.2")
        output = await shell(left, "ping -A -q -c 300 -s 1400 10.0.2.21")
        assert "300 packets transmitted, 300 packets received" in output
        details = sorted(port.detail.partition(" user=")[0] for port in switch.ports())
        assert details == ["UML vde_transport", "slirpvde:", "v3"]
    await wait_ports(switch, 0)


@pytest.mark.slow
async def test_guest_of_a_newer_kernel_attaches_its_vector_device(
    directory: Path, switch: SwitchService, short_dir: Path
) -> None:
    kernel = vector_kernel()
    if kernel is None:
        pytest.skip("there is no newer kernel; run `make kernel`")
    (argument,) = [each.text for each in VdeListener(directory).arguments if each.needs == "vec-vde"]
    async with AsyncExitStack() as stack:
        stack.enter_context(running(require_program("slirpvde"), "-s", directory, "-D"))
        guest = await stack.enter_async_context(
            running_guest(short_dir, kernel=kernel, extra=(argument,), writable=(str(directory),))
        )
        await bring_up(guest, "vec0", "10.0.2.20")
        assert "UML user=" in (await wait_ports(switch, 2))[1].detail
        await ping(guest, "10.0.2.2")


# Who may attach.


@pytest.mark.needs_root
@pytest.mark.parametrize(("group", "served"), [("60123", True), ("60124", False)])
async def test_members_of_the_group_attach_and_others_do_not(
    short_dir: Path, group: str, served: bool
) -> None:
    directory = short_dir / "sw"
    short_dir.chmod(0o755)
    user = (*("setpriv", "--reuid=60001", "--regid=60001", f"--groups={group}"),)
    async with vde_directory(directory, Access(0o660, 60123)) as switch, vde_plug(directory) as own:
        await wait_ports(switch, 1)
        async with vde_plug(directory, prefix=user) as plug:
            if served:
                assert [port.peer.uid for port in await wait_ports(switch, 2) if port.peer] == [0, 60001]
                await meet(own, plug)
                return
            async with asyncio.timeout(scaled(10)):
                assert await plug.process.wait() != 0
        assert len(switch.ports()) == 1
