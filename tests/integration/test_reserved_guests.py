"""Frames to reserved addresses between real guests: their bridges speak STP, their bonds LACP."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio

from integration.peers.vlan_lan import Lan, host_program, running_lan
from support.deadline import deadline, wait_until_async
from support.guest_end import frame, mac
from umlab.switch.counters import DropReason
from umlab.switch.model import PortConfig, ReservedPolicy
from umlab.switch.vlan import PortVlan, VidSet

pytestmark = [pytest.mark.integration, pytest.mark.any_user, pytest.mark.asyncio(loop_scope="module")]

#: Each guest has two NICs for a bridge and two for a bond; the one guest's are ports 1 to 4.
NICS = {"left": ("vec",) * 4, "right": ("vec",) * 4}
#: Four cables: each is a VLAN of two access ports.
CABLES = {number: (number, number + 4) for number in range(1, 5)}
ENDS = [port_no for ends in CABLES.values() for port_no in ends]
PROBES = 9, 10
LLDP = b"\x88\xcc"
NOBODY = "00:00:00:00:00:00"
FORWARDING, BLOCKING = 3, 4
#: A bond speaks LACP over what says that it is full duplex only, as UML's NICs do not and cables inside of
#: the guest do: so each of its slaves is one end of such, the other end is tied to a NIC.
_BOND = """
set -e
cd /sys/class/net/bond0/bonding
ip link set bond0 down
echo 802.3ad >mode; echo fast >lacp_rate; echo 100 >miimon
for number in 2 3; do
    %(ip)s link add slave$number type veth peer name wire$number
    ip link set wire$number up
    for pair in "vec$number wire$number" "wire$number vec$number"; do
        set -- $pair
        %(tc)s qdisc add dev $1 ingress
        %(tc)s filter add dev $1 parent ffff: matchall action mirred egress redirect dev $2
    done
    echo +slave$number >slaves
done
ip link set bond0 up
ip addr add 10.0.2.%(number)s/24 dev bond0
"""
_BRIDGE = """
set -e
ip link add br0 type bridge
cd /sys/class/net/br0/bridge
echo 1 >stp_state; echo 200 >forward_delay; echo 100 >hello_time; echo 0 >multicast_snooping
brctl addif br0 vec0; brctl addif br0 vec1
ip addr add 10.0.1.%(number)s/24 dev br0
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lan() -> AsyncIterator[Lan]:
    modules = "bridge", "bonding", "veth", "sch_ingress", "cls_matchall", "act_mirred"
    async with running_lan(NICS, *modules) as made:
        made.configure(told(ReservedPolicy.BRIDGE))
        for number, name in enumerate(NICS, 1):
            words = {"ip": host_program("ip"), "tc": host_program("tc"), "number": number}
            await made.run(name, _BRIDGE % words)
            await made.run(name, _BOND % words)
        yield made


def told(policy: ReservedPolicy) -> dict[int, PortConfig]:
    return {
        port_no: PortConfig(PortVlan.access(100 + cable), policy)
        for cable, ends in CABLES.items()
        for port_no in ends
    }


async def both(lan: Lan, command: str) -> list[list[str]]:
    """Run a command in both guests and return the words of what it says."""
    said = await asyncio.gather(*(lan.run(name, command) for name in NICS))
    return [each.split() for each in said]


async def port_states(lan: Lan) -> list[int]:
    """Return what STP has made of the ports of both bridges, the left one's first."""
    states = await both(lan, "cat /sys/class/net/vec0/brport/state /sys/class/net/vec1/brport/state")
    return [int(state) for guest in states for state in guest]


async def roots(lan: Lan) -> list[list[str]]:
    """Return for both bridges whom they take for the root, and who they are."""
    return await both(lan, "cd /sys/class/net/br0/bridge && cat root_id bridge_id")


async def partners(lan: Lan) -> list[list[str]]:
    """Return for both bonds whom LACP has found on the other side, and how many slaves are one link."""
    return await both(lan, "cd /sys/class/net/bond0/bonding && cat ad_partner_mac ad_num_ports")


async def until(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Wait until the guests show what is wanted."""
    end = deadline(30)
    while (seen := await look()) != wanted:
        assert time.monotonic() < end, f"{seen} is not {wanted}"
        await asyncio.sleep(0.1)


async def begin_anew(lan: Lan, policy: ReservedPolicy, forward_delay: int) -> None:
    """Have bridges and bonds begin, on ports of a policy; the delay is in hundredths of a second."""
    # All go down first: a bridge that is up would tell the other its old delay, and a bond that had heard of
    # nobody asks twice a minute only, unless its slaves had no link meanwhile.
    await both(lan, "ip link set br0 down; for wire in wire2 wire3; do ip link set $wire down; done")
    lan.configure(told(policy))
    delay = f"echo {forward_delay} >/sys/class/net/br0/bridge/forward_delay"
    await both(lan, f"{delay}; ip link set br0 up; for wire in wire2 wire3; do ip link set $wire up; done")


def reserved_drops(lan: Lan) -> list[int]:
    """Return how many frames to reserved addresses were dropped, by the cable's end."""
    return [lan.switch.snapshot().ports[port_no].drops.get(DropReason.RESERVED, 0) for port_no in ENDS]


async def test_bridges_and_bonds_find_each_other_or_not_by_the_ports_policy(lan: Lan) -> None:
    # With a long delay, bridges that do not hear of each other close no loop while they are looked at.
    await begin_anew(lan, ReservedPolicy.BRIDGE, 3000)
    await wait_until_async(lambda: min(reserved_drops(lan)) >= 3, 30, "BPDUs and LACPDUs on all cables")
    assert all(root == bridge for root, bridge in await roots(lan))
    assert [partner for partner, _ in await partners(lan)] == [NOBODY, NOBODY]
    assert FORWARDING not in await port_states(lan)

    await begin_anew(lan, ReservedPolicy.TRANSPARENT, 200)
    dropped = reserved_drops(lan)
    await until(lambda: sorted_states(lan), [FORWARDING] * 3 + [BLOCKING])
    (root, left), (other_root, right) = await roots(lan)
    assert root == other_root == min(left, right)
    addresses = [address for (address,) in await both(lan, "cat /sys/class/net/bond0/address")]
    await until(lambda: partners(lan), [[addresses[1], "2"], [addresses[0], "2"]])

    # No loop, and two links that are one: each ping is answered once, whichever way it goes.
    for net in (1, 2):
        await lan.ping("left", f"10.0.{net}.2", count=100)
        await lan.ping("right", f"10.0.{net}.1", count=100)
    await asyncio.gather(lan.fetch("left", "10.0.1.2", "right"), lan.fetch("right", "10.0.2.1", "left"))
    assert reserved_drops(lan) == dropped


async def sorted_states(lan: Lan) -> list[int]:
    return sorted(await port_states(lan))


async def test_every_reserved_address_passes_is_dropped_or_is_ours(lan: Lan) -> None:
    """Among them those of LLDP, 802.1X and slow protocols, with a tag of the port's or without."""
    ingress, egress = PROBES
    vlan = PortVlan.trunk(VidSet.of((7,)), native=8)
    reserved = [bytes.fromhex("0180c20000") + bytes([last]) for last in range(16)]
    last = frame(bytes.fromhex("0180c2000010"), mac(9), payload=b"the first that is not reserved")
    async with lan.probe() as sender, lan.probe() as receiver:
        for policy in ReservedPolicy:
            lan.configure(
                {ingress: PortConfig(vlan, policy), egress: PortConfig(vlan, ReservedPolicy.BRIDGE)}
            )
            before = lan.switch.snapshot()
            sent = [
                (address + mac(9) + tag + kind).ljust(60, b"\0")
                for address in reserved
                for tag in (b"", b"\x81\x00\xe0\x07")
                for kind in (LLDP, b"\x88\x8e\x01\x01", b"\x88\x09\x01", b"\x00\x26\x42\x42\x03")
            ]
            for each in (*sent, last):
                sender.sock.send(each)
            heard = []
            # Its thread ends here; one of the loop's own would stay as long as the loop.
            with ThreadPoolExecutor(1) as pool:
                read = functools.partial(receiver.receive, lambda _: True)
                while (data := await asyncio.get_running_loop().run_in_executor(pool, read)) != last:
                    heard.append(data)
            assert heard == (sent if policy is ReservedPolicy.TRANSPARENT else [])
            after = lan.switch.snapshot()
            dropped = after.ports[ingress].drops.get(DropReason.RESERVED, 0)
            dropped -= before.ports[ingress].drops.get(DropReason.RESERVED, 0)
            assert dropped == (len(sent) if policy is ReservedPolicy.BRIDGE else 0)
            counts = [snapshot.counters.punted + snapshot.counters.punt_lost for snapshot in (before, after)]
            # LLDP without a tag is always ours as well.
            lldp = sum(each[12:14] == LLDP for each in sent)
            assert counts[1] - counts[0] == (len(sent) if policy is ReservedPolicy.PEER else lldp)
