"""A multicast group of a kernel's and of two switches, in a network namespace of the test's own."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from integration.peers.fake_guest import BROADCAST, frame, mac
from integration.peers.lan import bring_up, mac_of, ping
from integration.peers.namespace import NetworkNamespace, network_namespace
from integration.peers.switch_thread import BessGuest, SwitchThread
from integration.peers.uml_kernel import debian_kernel, running_guest
from support.deadline import scaled
from support.recording_sink import RecordingSink
from umlab.guest.cmdline import DaemonNic
from umlab.guest.kernel.config import read_kernel_config, transports_of
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import SessionSink
from umlab.transports.mcast import McastListener
from umlab.wire.ethernet import format_mac

pytestmark = [pytest.mark.integration, pytest.mark.needs_root]

GROUP, PORT = "239.192.168.1", 1102


class McastInNamespace(McastListener):
    """Joins the group in a namespace; the switch itself stays where it is."""

    def __init__(self, namespace: NetworkNamespace) -> None:
        super().__init__(GROUP, PORT)
        self._namespace = namespace

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Join it there; see :class:`umlab.transports.contract.Listener`."""
        with self._namespace.entered():
            await super().start(sink, kept)


@pytest.fixture
def namespace() -> Iterator[NetworkNamespace]:
    with network_namespace() as made:
        made.run("ip", "link", "set", "lo", "up")
        made.run("ip", "route", "add", "224.0.0.0/4", "dev", "lo")
        yield made


@pytest.fixture
def switches(short_dir: Path, namespace: NetworkNamespace) -> Iterator[list[SwitchThread]]:
    """Yield two switches in one group."""
    with ExitStack() as stack:
        made = []
        for name in ("left", "right"):
            (short_dir / name).mkdir()
            switch = SwitchThread(short_dir / name, SwitchConfig(), [McastInNamespace(namespace)])
            switch.start()
            stack.callback(switch.stop)
            made.append(switch)
        yield made


async def test_kernel_in_the_group_and_one_on_a_switch_ping_each_other(
    short_dir: Path, namespace: NetworkNamespace, switches: list[SwitchThread]
) -> None:
    (uml, _) = McastListener(GROUP, PORT).arguments
    support = {each.kind: each.missing for each in transports_of(read_kernel_config(debian_kernel()))}
    assert support[uml.needs] == ()
    left, right = switches
    async with AsyncExitStack() as stack:
        with namespace.entered():
            inside = await stack.enter_async_context(running_guest(short_dir, "inside", extra=(uml.text,)))
        nic = DaemonNic(str(left.control))
        outside = await stack.enter_async_context(running_guest(short_dir, "outside", nics=(nic,)))
        await bring_up(inside, "eth0", "10.0.0.1")
        await bring_up(outside, "eth0", "10.0.0.2")
        await ping(inside, "10.0.0.2")
        await ping(outside, "10.0.0.1")
        for guest, kinds in ((inside, ["mcast", "mcast"]), (outside, ["daemon", "mcast"])):
            address = await mac_of(guest, "eth0")
            assert [learned_on(switch, address) for switch in (left, right)] == kinds


def learned_on(switch: SwitchThread, address: str) -> str:
    """Return the kind of the port where a switch has learnt an address."""
    (port_no,) = [e.port_no for e in switch.call(switch.service.fdb) if format_mac(e.mac) == address]
    (kind,) = [port.kind for port in switch.ports() if port.port_no == port_no]
    return kind


def test_two_switches_hear_each_other_and_never_themselves(switches: list[SwitchThread]) -> None:
    left, right = switches
    (group,) = [port for port in left.ports() if port.kind == "mcast"]
    with BessGuest(left.bess) as guest, BessGuest(right.bess) as other:
        for switch in switches:
            switch.wait_ports(2)
        for number in range(1000):
            question, answer = (
                frame(BROADCAST, mac(n), bytes((number & 0xFF, n)) * 30, 1514) for n in (1, 2)
            )
            guest.send(question)
            assert other.receive() == question
            other.send(answer)
            assert guest.receive() == answer
        for switch in switches:
            counters = switch.snapshot().ports[group.port_no]
            assert (counters.rx_frames, counters.tx_frames) == (1000, 1000)
            assert not any(counters.drops.values())


async def test_group_is_heard_on_its_interface_alone(namespace: NetworkNamespace) -> None:
    for words in ("tuntap add dev umltap mode tap", "addr add 10.77.0.1/24 dev umltap", "link set umltap up"):
        namespace.run("ip", *words.split())
    sink, listener = RecordingSink(), McastListener(GROUP, PORT, "127.0.0.1")
    with ExitStack() as stack:
        with namespace.entered():
            await listener.start(sink)
            elsewhere, here = [
                stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)
            ]
        for sock, address in ((elsewhere, "10.77.0.1"), (here, "127.0.0.1")):
            interface = socket.inet_aton(address)
            membership = socket.inet_aton(GROUP) + interface
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            sock.sendto(address.encode(), (GROUP, PORT))
        receiver = listener.descriptors()["receiver"]
        assert select.select([receiver], [], [], scaled(10))[0]
        assert os.read(receiver, 100) == b"127.0.0.1"
    await listener.close()
    sink.close_links()
