"""Mirror sessions between real guests: what they copy, which way, and what comes of the copies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from integration.peers.lan import mac_of
from integration.peers.uplink import Plugged, waiting
from integration.peers.vlan_lan import Lan, host_program, running_lan
from support.deadline import wait_until_async
from umlab.switch.counters import DropReason
from umlab.switch.model import MirrorSession
from umlab.switch.vlan import PortVlan, VidSet
from umlab.wire.ethernet import format_mac

pytestmark = [pytest.mark.integration, pytest.mark.any_user, pytest.mark.asyncio(loop_scope="module")]

#: ``m`` is to see the copies.
NICS = {"a": ("eth",), "b": ("vec",), "m": ("vec", "vec")}
A, B, M, M_OTHER, PROBE = 1, 2, 3, 4, 5
PINGS = 20
#: ICMP types of a ping and its answer.
REQUEST, ANSWER = 8, 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guests() -> AsyncIterator[Lan]:
    async with running_lan(NICS, "8021q", "bridge") as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def lan(guests: Lan) -> Lan:
    await guests.clear()
    script = """
        set -e
        ip addr add 10.0.0.%(number)d/24 dev %(nic)s
        ip link add link %(nic)s name tagged type vlan id 10
        ip link set tagged up
        ip addr add 10.0.10.%(number)d/24 dev tagged
    """
    await asyncio.gather(
        guests.run("a", script % {"nic": "eth0", "number": 1}),
        guests.run("b", script % {"nic": "vec0", "number": 2}),
    )
    return guests


def session(
    destination: int, ports: tuple[int, ...] = (), vids: str = "", ingress: bool = True, egress: bool = True
) -> MirrorSession:
    name = f"to {destination}"
    return MirrorSession(name, destination, frozenset(ports), VidSet.parse(vids), ingress, egress)


async def copies_of_pings(lan: Lan, probe: Plugged, address: str) -> Counter[tuple[int, str]]:
    """Let ``a`` ping an address, and return the copies of that: how many by ICMP type and tag."""
    before = lan.switch.snapshot().ports[PROBE].tx_frames
    await lan.ping("a", address, count=PINGS)
    await wait_until_async(lambda: not lan.switch.snapshot().queued[PROBE], 10, "an empty queue")
    probe.sock.setblocking(False)
    frames = waiting(probe.sock.fileno())
    assert len(frames) == lan.switch.snapshot().ports[PROBE].tx_frames - before
    found: Counter[tuple[int, str]] = Counter()
    for data in frames:
        tag = data[12:16] if data[12:14] == b"\x81\x00" else b""
        rest = data[12 + len(tag) :]
        if rest[:2] == b"\x08\x00":
            found[rest[22], tag.hex()] += 1
        else:
            assert rest[:2] == b"\x08\x06", "nothing but ARP is there beside it"
    return found


async def test_session_copies_the_directions_and_vlans_that_it_is_told(lan: Lan) -> None:
    asked, answered = {(REQUEST, ""): PINGS}, {(ANSWER, ""): PINGS}
    async with lan.probe() as probe:
        for ingress, egress, wanted in (
            (True, True, asked | answered),
            (True, False, asked),
            (False, True, answered),
        ):
            lan.configure({}, (session(PROBE, (A,), "", ingress, egress),))
            assert await copies_of_pings(lan, probe, "10.0.0.2") == wanted
        # Two sessions for one destination, or both ports of a frame, are one copy.
        lan.configure({}, (session(PROBE, (A, B)), MirrorSession("other", PROBE, frozenset((B,)))))
        assert await copies_of_pings(lan, probe, "10.0.0.2") == asked | answered

        # Each copy has the tag with which its frame came.
        trunk = PortVlan.trunk(VidSet.of((10,)), native=1)
        lan.configure({A: trunk, B: trunk}, (session(PROBE, vids="10"),))
        both = {(REQUEST, "8100000a"): PINGS, (ANSWER, "8100000a"): PINGS}
        assert await copies_of_pings(lan, probe, "10.0.10.2") == both
        assert await copies_of_pings(lan, probe, "10.0.0.2") == {}
        lan.configure({A: PortVlan.access(10), B: trunk}, (session(PROBE, vids="10"),))
        await lan.run("a", "ip link del tagged; ip addr add 10.0.10.1/24 dev eth0")
        both = {(REQUEST, ""): PINGS, (ANSWER, "8100000a"): PINGS}
        assert await copies_of_pings(lan, probe, "10.0.10.2") == both


async def test_third_guest_sees_what_two_others_say(lan: Lan) -> None:
    await lan.ping("a", "10.0.0.2")
    lan.configure({}, (session(M, (A, B)),))
    tcpdump = host_program("tcpdump")
    await lan.run(
        "m",
        f"{tcpdump} -Z root -l -nn -i vec0 icmp >/tmp/copies 2>/tmp/said &\n"
        "until grep -q listening /tmp/said; do sleep 0.1; done",
    )
    await lan.ping("a", "10.0.0.2", count=PINGS)
    wait = f"until [ $(wc -l </tmp/copies) -ge {2 * PINGS} ]; do sleep 0.1; done"
    said = await lan.run("m", f"{wait}; killall tcpdump; cat /tmp/copies")
    assert said.count("10.0.0.1 > 10.0.0.2: ICMP echo request") == PINGS
    assert said.count("10.0.0.2 > 10.0.0.1: ICMP echo reply") == PINGS
    # Nothing but copies gets there, and nothing that it says gets anywhere.
    before = lan.switch.snapshot().ports
    await lan.run("m", "ip addr add 10.0.0.3/24 dev vec0")
    await lan.fails("m", "arping -c 1 -w 1 -I vec0 10.0.0.2")
    after = lan.switch.snapshot().ports
    assert after[M].drops[DropReason.MIRROR] > before[M].drops.get(DropReason.MIRROR, 0)
    assert (after[A].tx_frames, after[B].tx_frames) == (before[A].tx_frames, before[B].tx_frames)


async def test_guest_that_bridges_the_copies_back_makes_no_loop(lan: Lan) -> None:
    await lan.run(
        "m",
        "ip link add br0 type bridge && echo 0 >/sys/class/net/br0/bridge/multicast_snooping &&"
        "brctl addif br0 vec0",
    )
    lan.configure({}, (session(M, (A,)), session(M_OTHER, (A,))))
    await lan.run("m", "brctl addif br0 vec1 && ip link set br0 up")
    before = lan.switch.snapshot()
    await lan.ping("a", "10.0.0.2", count=100)
    await asyncio.gather(lan.fetch("a", "10.0.0.2", "b"), lan.fetch("b", "10.0.0.1", "a"))
    await lan.run("m", "ip link set br0 down; brctl delif br0 vec1")
    after = lan.switch.snapshot()
    assert after.counters.moved == before.counters.moved
    came_back = [
        after.ports[port_no].drops.get(DropReason.MIRROR, 0)
        - before.ports[port_no].drops.get(DropReason.MIRROR, 0)
        for port_no in (M, M_OTHER)
    ]
    assert max(came_back) >= 100
    assert sum(came_back) <= sum(after.ports[port_no].tx_frames for port_no in (M, M_OTHER))
    a, b = [await mac_of(lan.guests[name], nic) for name, nic in (("a", "eth0"), ("b", "vec0"))]
    assert {(format_mac(entry.mac), entry.port_no) for entry in lan.switch.fdb()} == {(a, A), (b, B)}


async def test_reader_of_copies_that_stalls_harms_nobody_and_what_it_lost_is_counted(lan: Lan) -> None:
    async with lan.probe():
        lan.configure({}, (session(PROBE, (A,)),))
        before = lan.switch.snapshot().ports
        await asyncio.gather(lan.fetch("a", "10.0.0.2", "b"), lan.fetch("b", "10.0.0.1", "a"))
        snapshot = lan.switch.snapshot()
        after = snapshot.ports

        def grown(port_no: int, name: str) -> int:
            return int(getattr(after[port_no], name) - getattr(before[port_no], name))

        def tail(port_no: int) -> int:
            counts = [each[port_no].drops.get(DropReason.TAIL, 0) for each in (before, after)]
            return counts[1] - counts[0]

        copied = grown(A, "rx_frames") + grown(A, "tx_frames") + tail(A)
        assert grown(PROBE, "tx_frames") + snapshot.queued[PROBE] + tail(PROBE) == copied
        assert tail(PROBE) > 0
