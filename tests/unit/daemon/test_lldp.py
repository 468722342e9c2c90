"""LLDP of running switches, on both engines, and as a lab's daemon shows it and goes on with it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from support.deadline import scaled, wait_until_async
from support.engines import ENGINES
from support.guest_end import BROADCAST, frame, mac
from support.kept_lab import KeptLab
from umlab._clock import MonotonicClock
from umlab.daemon.lldp import LldpService, station_mac
from umlab.daemon.switch import SwitchService
from umlab.daemon.switch_change import SwitchChange
from umlab.daemon.view import PortView
from umlab.switch.control.lldp import NeighbourEvent, NeighbourGone, NeighbourSeen
from umlab.switch.model import MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import PortVlan, VidSet
from umlab.transports.contract import Peer
from umlab.transports.fd import socket_pair
from umlab.wire.lldp import Capabilities, Identifier, Lldpdu, parse_frame, serialize_frame

PEER = Peer(0, 0, 0, None)


def lldp(number: int, ttl: int = 120) -> bytes:
    """Return a frame of a neighbour."""
    pdu = Lldpdu(Identifier(4, mac(number)), Identifier(5, b"eth0"), ttl, system_name=b"left")
    return serialize_frame(mac(number), pdu)


async def receive(guest: socket.socket) -> bytes:
    """Return the next frame, while the switch's loop runs; nothing at the end."""
    async with asyncio.timeout(scaled(10)):
        return await asyncio.get_running_loop().sock_recv(guest, 2000)


@dataclass
class Bed:
    """A switch with LLDP."""

    service: SwitchService
    lldp: LldpService
    events: list[NeighbourEvent] = field(default_factory=list)
    guests: list[socket.socket] = field(default_factory=list)

    def plug(self) -> socket.socket:
        """Return the end of a new guest."""
        ours, theirs = socket_pair()
        self.service.fd_listener.plug(ours, PEER, "")
        self.guests.append(theirs)
        return theirs

    async def event(self, kind: type) -> Any:
        """Wait for the first event of a kind, and take all that came until then."""

        def found() -> list[NeighbourEvent]:
            return [event for event in self.events if isinstance(event, kind)]

        await wait_until_async(found, 10, kind.__name__)
        event = found()[0]
        self.events.clear()
        return event


MakeBed = Callable[..., Awaitable[Bed]]


@pytest.fixture(params=ENGINES)
async def make_bed(request: pytest.FixtureRequest) -> AsyncIterator[MakeBed]:
    """Yield what starts a switch; all are stopped afterwards."""
    beds: list[Bed] = []

    async def make(config: SwitchConfig | None = None) -> Bed:
        config, clock = config or SwitchConfig(), MonotonicClock()
        service = SwitchService("lan", config, (), engine=ENGINES[request.param](config, clock), clock=clock)
        events: list[NeighbourEvent] = []
        made = LldpService("lab", service, lambda port_no: f"guest {port_no}", events.append)
        beds.append(Bed(service, made, events))
        await service.start()
        return beds[-1]

    yield make
    for each in beds:
        each.lldp.stop()
        await each.service.stop()
        for guest in each.guests:
            guest.close()
        assert set(each.service.engine.debug_counts().values()) == {0}


@pytest.mark.parametrize(
    ("policy", "forwarded"),
    [(ReservedPolicy.TRANSPARENT, True), (ReservedPolicy.BRIDGE, False), (ReservedPolicy.PEER, False)],
)
async def test_neighbour_is_seen_whether_its_frames_are_forwarded_or_not(
    make_bed: MakeBed, policy: ReservedPolicy, forwarded: bool
) -> None:
    bed = await make_bed(SwitchConfig(ports={1: PortConfig(reserved=policy)}))
    left, right = bed.plug(), bed.plug()
    left.send(lldp(1))
    seen = await bed.event(NeighbourSeen)
    assert (seen.port_no, seen.chassis_id, seen.port_id, seen.system_name) == (
        *(1, "02:00:00:00:00:01"),
        *("eth0", "left"),
    )
    assert [each.system_name for each in bed.lldp.neighbours(1)] == ["left"]
    assert bed.lldp.neighbours(2) == ()
    left.send(frame(BROADCAST, mac(1)))
    frames = [await receive(right)]
    if forwarded:
        frames.append(await receive(right))
    assert frames == [*[lldp(1)] * forwarded, frame(BROADCAST, mac(1))]
    assert bed.lldp.counters() == {"lldp_malformed": 0, "lldp_refused": 0}


async def test_neighbour_on_a_vlan_port_is_seen(make_bed: MakeBed) -> None:
    bed = await make_bed(SwitchConfig(ports={1: PortConfig(vlan=PortVlan.trunk(VidSet.of([10])))}))
    bed.plug().send(lldp(1))
    assert (await bed.event(NeighbourSeen)).port_no == 1


async def test_neighbour_ages_by_itself(make_bed: MakeBed) -> None:
    bed = await make_bed()
    bed.plug().send(lldp(1, ttl=1))
    assert (await bed.event(NeighbourGone)).cause == "aged"
    assert bed.lldp.neighbours(1) == ()


async def test_neighbour_goes_with_its_port(make_bed: MakeBed) -> None:
    bed = await make_bed()
    left = bed.plug()
    left.send(lldp(1))
    await bed.event(NeighbourSeen)
    left.close()
    assert (await bed.event(NeighbourGone)).cause == "detached"
    bed.plug()
    assert bed.lldp.neighbours(1) == ()


async def test_malformed_frames_are_counted_told_once_and_forwarded(
    make_bed: MakeBed, caplog: pytest.LogCaptureFixture
) -> None:
    bed = await make_bed()
    left, right = bed.plug(), bed.plug()
    bad = lldp(1)[:-3]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            left.send(bad)
        await wait_until_async(lambda: bed.lldp.counters()["lldp_malformed"] == 3, 10, "three bad frames")
        left.send(lldp(1))
        await bed.event(NeighbourSeen)
    assert [record.getMessage() for record in caplog.records] == [
        "switch lan: malformed LLDP from port 1: message is cut: 25 of 26 bytes"
    ]
    assert [await receive(right) for _ in range(4)] == [bad, bad, bad, lldp(1)]


async def test_flood_leaves_the_switch_to_others(make_bed: MakeBed) -> None:
    bed = await make_bed()
    left, right = bed.plug(), bed.plug()
    for number in range(500):
        try:
            left.send(lldp(number))
        except BlockingIOError:
            break

    def is_known() -> bool:
        # As an agent does that says the same again and again.
        right.send(lldp(1000))
        return bool(bed.lldp.neighbours(2))

    await wait_until_async(is_known, 10, "the other's neighbour")
    assert len(bed.lldp.neighbours(1)) <= 16


async def test_switch_that_sends_says_it_at_every_port_and_takes_it_back(make_bed: MakeBed) -> None:
    vlan = PortConfig(vlan=PortVlan.access(10))
    bed = await make_bed(SwitchConfig(ports={2: vlan}))
    left, right = bed.plug(), bed.plug()
    bed.lldp.send(True)
    own = station_mac("lab/lan")
    for port_no, guest in ((1, left), (2, right)):
        data = await receive(guest)
        assert data[6:12] == own
        pdu = parse_frame(data)
        assert (pdu.chassis_id, pdu.port_id) == (Identifier(4, own), Identifier(5, b"lan:%d" % port_no))
        assert (pdu.system_name, pdu.port_description) == (b"lab/lan", b"guest %d" % port_no)
        assert (pdu.ttl, pdu.capabilities) == (121, Capabilities(4, 4))
    # A second later again, by itself.
    assert parse_frame(await receive(left)).ttl == 121
    third = bed.plug()
    assert parse_frame(await receive(third)).port_id.value == b"lan:3"
    bed.lldp.stop()
    frames = [await receive(left)]
    while parse_frame(frames[-1]).ttl:
        frames.append(await receive(left))
    assert all(entry.mac != own for entry in bed.service.fdb())


async def test_destination_of_a_mirror_session_is_told_nothing(make_bed: MakeBed) -> None:
    bed = await make_bed(SwitchConfig(mirrors=(MirrorSession("m", 2, frozenset({1})),)))
    left, right = bed.plug(), bed.plug()
    bed.lldp.send(True)
    assert parse_frame(await receive(left)).ttl == 121
    left.send(frame(BROADCAST, mac(1)))
    assert await receive(right) == frame(BROADCAST, mac(1))


def test_address_is_stable_local_and_of_one_station() -> None:
    found = station_mac("lab/lan")
    assert found == station_mac("lab/lan") != station_mac("lab/other")
    assert len(found) == 6
    assert found[0] & 3 == 2


# In a lab's daemon.


async def plugged(kept: KeptLab) -> socket.socket:
    """Return the end of a guest on the switch ``lan``."""
    guest = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    guest.connect(str(kept.runtime / "b"))
    guest.setblocking(False)
    await wait_until_async(lambda: kept.lab.ports("lan"), 10, "a port")
    return guest


async def test_lab_shows_neighbours_and_tells_of_them(kept: KeptLab) -> None:
    told: list[dict[str, Any]] = []
    kept.lab.events.subscribers.append(told.append)
    await kept.lab.put_switch(kept.switch())

    def port() -> PortView:
        return kept.lab.ports("lan")[0]

    with await plugged(kept) as guest:
        guest.send(lldp(1))
        await wait_until_async(lambda: port().neighbours, 10, "a neighbour")
        (neighbour,) = port().neighbours
        assert (neighbour.system_name, neighbour.port_id) == ("left", "eth0")
        guest.send(lldp(1)[:-3])
        await wait_until_async(lambda: kept.lab.switch("lan").counters["lldp_malformed"], 10, "the counter")
        guest.send(lldp(1, ttl=0))
        await wait_until_async(lambda: not port().neighbours, 10, "no neighbour")
    seen, gone = (event for event in told if event["event"].startswith("neighbour"))
    facts = {"switch": "lan", "port_no": 1, "chassis_id": "02:00:00:00:00:01", "port_id": "eth0"}
    assert seen == {**seen, **facts, "event": "neighbour_seen", "system_name": "left"}
    assert gone == {**gone, **facts, "event": "neighbour_gone", "system_name": "left", "cause": "shutdown"}


async def test_setting_holds_over_a_restart_and_ends_with_the_switch(kept: KeptLab) -> None:
    await kept.lab.put_switch(kept.switch())
    with await plugged(kept) as guest:
        assert await kept.lab.set_switch("lan", SwitchChange(lldp=True))
        assert not await kept.lab.set_switch("lan", SwitchChange(lldp=True))
        pdu = parse_frame(await receive(guest))
        assert (pdu.port_description, pdu.ttl) == (b"bess", 121)
        lab = await kept.restart()
        assert lab.switch("lan").lldp
        spec = replace(kept.switch(), lldp=True)
        assert not await lab.put_switch(spec)
        assert parse_frame(await receive(guest)).system_name == f"{lab.name}/lan".encode()
        await lab.remove_switch("lan")
        last = b""
        while data := await receive(guest):
            last = data
        assert parse_frame(last).ttl == 0


async def test_switch_that_is_described_so_sends_from_the_start(kept: KeptLab) -> None:
    await kept.lab.put_switch(replace(kept.switch(), lldp=True))
    with await plugged(kept) as guest:
        assert parse_frame(await receive(guest)).ttl == 121
        await kept.lab.set_switch("lan", SwitchChange(lldp=False))
        while parse_frame(await receive(guest)).ttl:
            pass
    assert not kept.lab.switch("lan").lldp
