"""VLANs between real guests: their kernels' 802.1Q, 802.1ad and VLAN-filtering bridge are the peers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
import pytest_asyncio

from integration.peers.lan import mac_of
from integration.peers.uplink import Plugged
from integration.peers.vlan_lan import MUCH, Lan, host_program, running_lan
from umlab.switch.counters import DropReason
from umlab.switch.vlan import STAG, PortVlan, VidSet
from umlab.wire.ethernet import format_mac

pytestmark = [pytest.mark.integration, pytest.mark.any_user, pytest.mark.asyncio(loop_scope="module")]

#: The guests' NICs: ``a`` is on the daemon transport, the others are on bess; and their ports.
NICS = {"a": ("eth",), "b": ("vec", "vec"), "c": ("vec",)}
A, B, B_OTHER, C, PROBE = 1, 2, 3, 4, 5
#: What a ping of the longest frame carries beside the headers of IPv4 and ICMP.
LONGEST = 1500 - 28
MANY = 50


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guests() -> AsyncIterator[Lan]:
    async with running_lan(NICS, "8021q", "bridge") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def lan(guests: Lan) -> Lan:
    await guests.clear()
    return guests


def vids(text: str) -> VidSet:
    return VidSet.parse(text)


def trunk(text: str, native: int | None = None, tpid: int = 0x8100) -> PortVlan:
    return PortVlan.trunk(vids(text), native, tpid)


async def tagged(lan: Lan, name: str, under: str, vid: int, address: str, kind: str = "") -> None:
    """Make a guest's VLAN device ``UNDER.VID``."""
    device = f"{under}.{vid}"
    make = f"set -e; ip link add link {under} name {device} type vlan {kind} id {vid}"
    give = f"ip addr add {address}/24 dev {device}" if address else ""
    await lan.run(name, f"{make}; ip link set {device} up; {give}")


async def untagged(lan: Lan, name: str, *addresses: str) -> None:
    nic = "eth0" if name == "a" else "vec0"
    await lan.run(name, " && ".join(f"ip addr add {address}/24 dev {nic}" for address in addresses))


def heard(lan: Lan, port_no: int) -> int:
    """Return how many frames have come from a port, dropped or not."""
    counters = lan.switch.snapshot().ports[port_no]
    return counters.rx_frames + sum(counters.drops.values())


async def unanswered(lan: Lan, port_no: int, name: str, nic: str, address: str) -> None:
    """Let a guest ask for an address; the question must leave it, and nobody may answer."""
    before = heard(lan, port_no)
    await lan.fails(name, f"arping -c 1 -w 1 -I {nic} {address}")
    assert heard(lan, port_no) > before


async def who_asked(lan: Lan, name: str) -> set[str]:
    """Return of whom a guest's kernel knows, as it does of all who have asked for it."""
    return set(re.findall(r"^[0-9.]+", await lan.run(name, "cat /proc/net/arp"), re.MULTILINE))


async def stations(lan: Lan) -> set[tuple[int, str, int]]:
    """Return VID, address and port of all that is learnt."""
    return {(entry.vid, format_mac(entry.mac), entry.port_no) for entry in lan.switch.fdb()}


async def test_guests_speak_in_their_vlans_alone_on_access_ports_and_a_trunk(lan: Lan) -> None:
    lan.configure({A: PortVlan.access(10), B: trunk("10,20"), C: PortVlan.access(20)})
    await untagged(lan, "a", "10.0.10.1")
    await tagged(lan, "b", "vec0", 10, "10.0.10.2")
    await tagged(lan, "b", "vec0", 20, "10.0.20.2")
    # It would answer there, were it reached.
    await untagged(lan, "c", "10.0.20.3", "10.0.10.3")
    await lan.ping("a", "10.0.10.2")
    await lan.ping("b", "10.0.10.1", "10.0.20.3")
    await lan.ping("c", "10.0.20.2")

    await asyncio.gather(
        lan.fetch("a", "10.0.10.2", "b", MUCH),
        lan.fetch("b", "10.0.10.1", "a", MUCH),
        lan.fetch("c", "10.0.20.2", "b", MUCH),
    )
    a, b, c = [
        await mac_of(lan.guests[name], nic) for name, nic in (("a", "eth0"), ("b", "vec0"), ("c", "vec0"))
    ]
    assert {each for each in await stations(lan) if each[0]} == {
        (10, a, A),
        (10, b, B),
        (20, b, B),
        (20, c, C),
    }

    to_b = lan.switch.snapshot().ports[B].tx_frames
    await unanswered(lan, A, "a", "eth0", "10.0.10.3")
    assert lan.switch.snapshot().ports[B].tx_frames > to_b
    assert await who_asked(lan, "c") == {"10.0.20.2"}
    await unanswered(lan, C, "c", "vec0", "10.0.10.1")

    # Tags that are not a port's own go nowhere.
    await tagged(lan, "b", "vec0", 30, "10.0.30.2")
    await tagged(lan, "c", "vec0", 20, "10.0.30.3")
    for name, nic, port_no in (("b", "vec0.30", B), ("c", "vec0.20", C)):
        dropped = lan.switch.snapshot().ports[port_no].drops.get(DropReason.VLAN, 0)
        await unanswered(lan, port_no, name, nic, "10.0.30.77")
        assert lan.switch.snapshot().ports[port_no].drops[DropReason.VLAN] > dropped


async def test_native_vlan_and_priority_tags(lan: Lan) -> None:
    lan.configure(
        {A: PortVlan.access(30), B: trunk("10", native=30), C: PortVlan.access(10), PROBE: trunk("10,30")}
    )
    await untagged(lan, "a", "10.0.30.1", "10.0.31.1")
    await untagged(lan, "b", "10.0.30.2")
    await tagged(lan, "b", "vec0", 10, "10.0.10.2")
    await untagged(lan, "c", "10.0.10.3")
    await lan.ping("a", "10.0.30.2")
    await lan.ping("b", "10.0.30.1", "10.0.10.3", count=MANY, size=LONGEST)
    await lan.ping("c", "10.0.10.2")
    await asyncio.gather(lan.fetch("a", "10.0.30.2", "b"), lan.fetch("c", "10.0.10.2", "b"))

    # Tags of VID 0 that only say a priority: of the port's own VLAN, and on a trunk the priority stays.
    ip = host_program("ip")
    tags = (("b", "vec0", B, 30), ("c", "vec0", C, 10))
    for name, nic, _, vid in tags:
        await lan.run(name, f"{ip} link add link {nic} name prio type vlan id 0 egress-qos-map 0:5")
        await lan.run(name, f"ip link set prio up; ip addr add 10.0.31.{vid}/24 dev prio")
    async with lan.probe() as probe:
        for name, nic, port_no, vid in tags:
            mac = bytes.fromhex((await mac_of(lan.guests[name], nic)).replace(":", ""))
            await unanswered(lan, port_no, name, "prio", "10.0.31.77")
            seen = await asyncio.to_thread(received, probe, mac, b"\x08\x06")
            assert seen[12:16] == b"\x81\x00" + (5 << 13 | vid).to_bytes(2, "big")
    # The answers come without a tag, so not to that device: it is told the neighbour, and its kernel takes
    # them anywhere.
    a, b = await mac_of(lan.guests["a"], "eth0"), await mac_of(lan.guests["b"], "vec0")
    await lan.run("a", f"{ip} neigh replace 10.0.31.30 lladdr {b} dev eth0")
    await lan.run("b", f"{ip} neigh replace 10.0.31.1 lladdr {a} dev prio")
    await lan.ping("b", "10.0.31.1", count=MANY, size=LONGEST)


def received(probe: Plugged, source: bytes, kind: bytes) -> bytes:
    """Return the next frame from an address, with one tag and of a type behind it."""
    return probe.receive(lambda data: data[6:12] == source and data[16:18] == kind)


async def test_hybrid_ports_let_clients_reach_a_server_and_not_each_other(lan: Lan) -> None:
    """No guest knows of a VLAN: each port's own one leads to the server, and the server's to all."""
    lan.configure(
        {
            A: PortVlan(10, untagged=vids("10,99")),
            B: PortVlan(99, untagged=vids("10,20,99")),
            C: PortVlan(20, untagged=vids("20,99")),
        }
    )
    for name, address in (("a", "10.0.99.1"), ("b", "10.0.99.2"), ("c", "10.0.99.3")):
        await untagged(lan, name, address)
    await lan.ping("a", "10.0.99.2")
    await lan.ping("b", "10.0.99.1", "10.0.99.3")
    await lan.ping("c", "10.0.99.2")
    await asyncio.gather(lan.fetch("a", "10.0.99.2", "b"), lan.fetch("c", "10.0.99.2", "b"))
    await unanswered(lan, A, "a", "eth0", "10.0.99.3")
    assert await who_asked(lan, "c") == {"10.0.99.2"}


async def test_vlan_filtering_bridge_is_a_trunks_peer(lan: Lan) -> None:
    """The bridge leads from the trunk to a port of another VLAN, and has a leg of its own in a third one."""
    lan.configure(
        {A: PortVlan.access(10), B: trunk("10,20"), B_OTHER: PortVlan.access(40), C: PortVlan.access(40)}
    )
    bridge = host_program("bridge")
    await lan.run(
        "b",
        "ip link add br0 type bridge && cd /sys/class/net/br0/bridge &&"
        "echo 0 >default_pvid && echo 1 >vlan_filtering && echo 0 >multicast_snooping &&"
        "brctl addif br0 vec0 && brctl addif br0 vec1 &&"
        f"{bridge} vlan add dev vec0 vid 10 && {bridge} vlan add dev vec0 vid 20 &&"
        f"{bridge} vlan add dev vec1 vid 10 pvid untagged && {bridge} vlan add dev br0 vid 20 self &&"
        "ip link set br0 up",
    )
    await tagged(lan, "b", "br0", 20, "10.0.20.2")
    await untagged(lan, "a", "10.0.10.1")
    await untagged(lan, "c", "10.0.10.3")
    await lan.ping("a", "10.0.10.3", count=MANY, size=LONGEST)
    await lan.ping("c", "10.0.10.1")
    await asyncio.gather(lan.fetch("a", "10.0.10.3", "c"), lan.fetch("c", "10.0.10.1", "a"))
    # One address is in two VLANs, on another port in each.
    a = await mac_of(lan.guests["a"], "eth0")
    found = await stations(lan)
    assert {(10, a, A), (40, a, B_OTHER)} <= found

    lan.configure({A: PortVlan.access(20), B: trunk("10,20")})
    await lan.run("a", "ip addr flush dev eth0; ip addr add 10.0.20.1/24 dev eth0")
    await lan.ping("a", "10.0.20.2")
    await lan.ping("b", "10.0.20.1", count=MANY, size=LONGEST)


async def test_customers_tags_cross_a_provider_and_meet_its_own_on_a_stag_trunk(lan: Lan) -> None:
    """``a`` is the provider's end, with both tags; ``b`` and ``c`` are customers that know their own only."""
    lan.configure(
        {A: trunk("100,200", tpid=STAG), B: PortVlan.access(100, STAG), C: PortVlan.access(100, STAG)}
    )
    await tagged(lan, "a", "eth0", 100, "10.0.100.1", "protocol 802.1ad")
    await tagged(lan, "a", "eth0.100", 10, "10.0.10.1")
    await tagged(lan, "a", "eth0", 200, "", "protocol 802.1ad")
    await tagged(lan, "a", "eth0.200", 10, "10.0.20.1")
    for name, nic, number in (("b", "vec0", 2), ("c", "vec0", 3)):
        await untagged(lan, name, f"10.0.100.{number}", f"10.0.20.{number}")
        await tagged(lan, name, nic, 10, f"10.0.10.{number}")
    await lan.ping("a", "10.0.100.2", "10.0.100.3", "10.0.10.2", "10.0.10.3")
    await lan.ping("b", "10.0.10.1", "10.0.10.3", "10.0.100.3")
    await lan.ping("c", "10.0.10.1", "10.0.10.2")

    # Whole frames of 1522 bytes between the provider and a customer, of 1518 between customers.
    for name, address, sizes in (
        ("a", "10.0.10.2", {A: 1522, B: 1518}),
        ("b", "10.0.10.1", {A: 1522, B: 1518}),
        ("c", "10.0.10.2", {C: 1518, B: 1518}),
    ):
        before = lan.switch.snapshot().ports
        await lan.ping(name, address, count=MANY, size=LONGEST)
        after = lan.switch.snapshot().ports
        for port_no, size in sizes.items():
            assert after[port_no].rx_bytes - before[port_no].rx_bytes >= MANY * size
            assert after[port_no].tx_bytes - before[port_no].tx_bytes >= MANY * size
            assert after[port_no].rx_frames - before[port_no].rx_frames < MANY + 10
    await asyncio.gather(
        lan.fetch("a", "10.0.10.2", "b"), lan.fetch("b", "10.0.10.3", "c"), lan.fetch("c", "10.0.10.1", "a")
    )
    await unanswered(lan, A, "a", "eth0.200.10", "10.0.20.2")


async def test_tagged_frames_cross_a_switch_without_vlans_unchanged_at_full_size(lan: Lan) -> None:
    names = (("a", "eth0", 1), ("b", "vec0", 2), ("c", "vec0", 3))
    for name, nic, number in names:
        await tagged(lan, name, nic, 10, f"10.0.10.{number}")
        await tagged(lan, name, nic, 100, "", "protocol 802.1ad")
        await tagged(lan, name, f"{nic}.100", 10, f"10.0.20.{number}")
    for (name, _, _), (_, _, number) in pairwise((*names, names[0])):
        before = lan.switch.snapshot().ports
        await lan.ping(name, f"10.0.10.{number}", f"10.0.20.{number}", count=MANY, size=LONGEST)
        after = lan.switch.snapshot().ports
        sent = sum(after[port_no].rx_bytes - before[port_no].rx_bytes for port_no in (A, B, C))
        frames = sum(after[port_no].rx_frames - before[port_no].rx_frames for port_no in (A, B, C))
        assert sent >= 2 * MANY * (1518 + 1522)
        assert frames < 4 * MANY + 20
    for net in (10, 20):
        await asyncio.gather(
            lan.fetch("a", f"10.0.{net}.2", "b"),
            lan.fetch("b", f"10.0.{net}.3", "c"),
            lan.fetch("c", f"10.0.{net}.1", "a"),
        )
    async with lan.probe() as probe:
        for device, net, tags in (("vec0.10", 10, "8100000a"), ("vec0.100.10", 20, "88a800648100000a")):
            await unanswered(lan, B, "b", device, f"10.0.{net}.77")
            seen = await asyncio.to_thread(probe.receive, lambda data: data[:6] == b"\xff" * 6)
            assert seen[12:].startswith(bytes.fromhex(tags) + b"\x08\x06")


async def test_port_changes_its_vlan_while_others_are_under_load(lan: Lan) -> None:
    ports = {A: PortVlan.access(10), B: trunk("10,20"), C: PortVlan.access(20)}
    lan.configure(ports)
    await untagged(lan, "a", "10.0.10.1")
    await tagged(lan, "b", "vec0", 10, "10.0.10.2")
    await tagged(lan, "b", "vec0", 20, "10.0.20.2")
    await untagged(lan, "c", "10.0.20.3", "10.0.10.3")
    await lan.ping("c", "10.0.20.2")
    c = await mac_of(lan.guests["c"], "vec0")

    loads = [
        asyncio.create_task(lan.fetch("a", "10.0.10.2", "b", MUCH)),
        asyncio.create_task(lan.fetch("b", "10.0.10.1", "a", MUCH)),
    ]
    changes = 0
    while changes < 8 or not all(load.done() for load in loads):
        for vid, neighbour in ((10, "10.0.10.1"), (20, "10.0.20.2")):
            lan.configure({**ports, C: PortVlan.access(vid)})
            assert not {entry for entry in await stations(lan) if entry[1] == c and entry[0] != vid}
            # A ping may find a full queue: its neighbour is one of those under load.
            await lan.run("c", f"arping -f -w 10 -I vec0 {neighbour}")
            changes += 1
    await asyncio.gather(*loads)
    await unanswered(lan, C, "c", "vec0", "10.0.10.1")
    assert {entry for entry in await stations(lan) if entry[1] == c} == {(20, c, C)}
