"""Real guests on socket pairs that they inherit: from their start to their end, whatever comes between."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from integration.peers.background_lab import BackgroundLab, TypedShell
from integration.peers.fake_guest import attached
from integration.peers.lan import bring_up, ping, shell
from integration.peers.uml_dump import uml_dump
from integration.peers.uml_kernel import KERNELS, debian_kernel
from support.deadline import scaled, wait_until, wait_until_async
from support.require import require_program
from umlab.client.call import PortView
from umlab.daemon.guest import GuestService
from umlab.daemon.socket_pair import SocketPairs
from umlab.daemon.switch import SwitchService
from umlab.guest.cmdline import FdNic, GuestSpec
from umlab.switch.model import SwitchConfig

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

MTU = 16_000
#: Bytes that each of two guests sends the other at once.
BULK = 4 << 20
ADDRESS = {"left": "10.0.0.1", "right": "10.0.0.2"}


# In a lab, with a daemon that goes and comes again.


def described(name: str) -> GuestSpec:
    mac = f"02:00:00:00:00:{ADDRESS[name][-1]:0>2}"
    return GuestSpec(name, debian_kernel(), nics=(FdNic("lan", mac),))


def bring_up_typed(lab: BackgroundLab, name: str) -> None:
    TypedShell(lab, name).ask(f"ip addr add {ADDRESS[name]}/24 dev vec0; ip link set vec0 up")


def ping_typed(lab: BackgroundLab, name: str) -> None:
    (other,) = ADDRESS.keys() - {name}
    said = TypedShell(lab, name).ask(f"ping -A -c 3 -W 10 {ADDRESS[other]}")
    assert "3 packets transmitted, 3 packets received" in said


def fd_ports(lab: BackgroundLab) -> list[PortView]:
    return [port for port in lab.client.ports("lan") if port.kind == "fd"]


def test_ports_are_their_guests_outlive_a_daemon_and_end_with_their_guest(short_dir: Path) -> None:
    tcpdump = str(require_program("tcpdump"))
    with BackgroundLab(guests=tuple(map(described, ADDRESS))) as lab:
        lab.wait_ready()
        pids = {guest.name: guest.pid for guest in lab.client.guests()}
        before = [(port.port_no, port.detail, port.guest, port.pid, port.uid) for port in fd_ports(lab)]
        assert sorted(before) == [
            (number, f"{name} vec0", name, pids[name], os.geteuid()) for number, name in enumerate(ADDRESS, 1)
        ]

        # Netkit's dump sees what goes from one to the other.
        for name in ADDRESS:
            bring_up_typed(lab, name)
        with uml_dump(lab.runtime / "lan.ctl", short_dir / "pcap") as dump:
            ping_typed(lab, "right")
            wait_until(lambda: [each[12:14] for each in dump.frames()].count(b"\x08\0") == 6, 10, "the pings")
        command = [tcpdump, "-nn", "-r", str(short_dir / "pcap"), "icmp"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert text.count("ICMP echo request") == text.count("ICMP echo reply") == 3

        lab.kill_daemon()
        lab.start()
        ports = fd_ports(lab)
        assert [(port.port_no, port.detail, port.guest, port.pid, port.uid) for port in ports] == before
        ping_typed(lab, "left")

        os.killpg(pids["left"], signal.SIGKILL)
        wait_until(lambda: [port.guest for port in fd_ports(lab)] == ["right"], 10, "one port")
        with attached(lab.runtime / "lan.ctl") as other:
            TypedShell(lab, "right").ask("ping -c 1 -W 1 10.0.0.77")
            assert other.receive()[6:12] == bytes.fromhex("020000000002")

        lab.client.put_guest(described("left"))
        lab.wait_ready()
        bring_up_typed(lab, "left")
        ping_typed(lab, "left")


# In this process, with a command channel that a reboot does not end.


@asynccontextmanager
async def running_switch() -> AsyncIterator[SwitchService]:
    """Run a switch that listens nowhere."""
    switch = SwitchService("lan", SwitchConfig(max_frame=MTU + 14), ())
    await switch.start()
    try:
        yield switch
    finally:
        await switch.stop()


@asynccontextmanager
async def plugged_guest(
    switch: SwitchService, base: Path, kernel: str, umid: str, count: int
) -> AsyncIterator[GuestService]:
    """Run a guest with so many NICs on a switch."""
    spec = GuestSpec(umid, kernel, nics=(FdNic("lan", mtu=MTU),) * count)
    with SocketPairs(spec, lambda _: switch.fd_listener) as pairs:
        service = await GuestService.start(spec, str(base), nic_fds=pairs.guest_ends)
        pairs.plug(service.guest.pid)
    async with service:
        await service.ready(scaled(60))
        yield service


async def ping_with_whole_frames(switch: SwitchService, guest: GuestService) -> None:
    """Ping with the largest frames, which must not be cut into many."""
    before = switch.snapshot().ports[1]
    await shell(guest, f"ping -A -c 3 -W 10 -s {MTU - 28} {ADDRESS['right']}")
    after = switch.snapshot().ports[1]
    assert after.rx_bytes - before.rx_bytes >= 3 * (MTU + 14)
    assert after.rx_frames - before.rx_frames < 10


async def flood(guests: dict[str, GuestService]) -> None:
    """Let both send each other a stream of bytes at once, and wait until all have arrived."""
    for guest in guests.values():
        await shell(
            guest,
            # The end of what it could send would end the connection.
            f"(sleep 1000 | nc -l -p 5000 | head -c {BULK} | wc -c >/tmp/received) >/dev/null 2>&1 &\n"
            "until grep -qs ':1388 ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done",
        )
    for name, other in (("left", "right"), ("right", "left")):
        send = f"dd if=/dev/zero bs=64k count={BULK >> 16} | nc {ADDRESS[other]} 5000"
        await shell(guests[name], f"({send}) </dev/null >/dev/null 2>&1 &")
    for guest in guests.values():
        received = "until [ -s /tmp/received ]; do sleep 0.1; done; cat /tmp/received; killall sleep"
        assert (await shell(guest, received)).strip() == str(BULK)


@pytest.mark.parametrize("kernel", KERNELS)
async def test_large_frames_floods_and_reboots_pass_and_going_down_is_the_end(
    short_dir: Path, kernel: Callable[[], str]
) -> None:
    async with AsyncExitStack() as stack:
        switch = await stack.enter_async_context(running_switch())
        left, right = [
            await stack.enter_async_context(plugged_guest(switch, short_dir, kernel(), name, count))
            for name, count in (("left", 2), ("right", 1))
        ]
        for name, guest in (("left", left), ("right", right)):
            await bring_up(guest, "vec0", ADDRESS[name])
        await ping_with_whole_frames(switch, left)
        await flood({"left": left, "right": right})

        # A reboot keeps the descriptors, in use or not.
        ports = switch.ports()
        assert [port.detail for port in ports] == ["left vec0", "left vec1", "right vec0"]
        await left.reboot(scaled(30))
        await bring_up(left, "vec0", ADDRESS["left"])
        await shell(right, "ip neigh flush dev vec0")
        await ping(right, ADDRESS["left"])
        assert switch.ports() == ports

        # Going down closes one for good; the other is not concerned.
        await shell(left, "ip link set vec0 down")
        await wait_until_async(lambda: len(switch.ports()) == 2, 10, "no port")
        assert switch.ports() == ports[1:]
        await bring_up(left, "vec1", "10.0.0.3")
        await ping(left, ADDRESS["right"])
