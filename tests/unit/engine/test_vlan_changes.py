"""VLANs of some ports change while others are busy: those lose nothing, and what was learnt goes at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from support.exchange import running_exchange
from support.guest_end import BROADCAST, GuestEnd, frame, mac, plug, traffic_of
from umlab.engine.contract import Engine
from umlab.switch.model import PortConfig, SwitchConfig
from umlab.switch.vlan import PortVlan, VidSet

EngineMaker = Callable[..., Engine]

LEFT, RIGHT, MOVED, TRUNK = 1, 2, 3, 4
BUSY = {number: PortConfig(PortVlan.access(10)) for number in (LEFT, RIGHT)}
STATION = mac(0x33)


def told(vid: int) -> SwitchConfig:
    """Return what the switch is told to have the moved port in a VLAN."""
    trunk = PortConfig(PortVlan.trunk(VidSet.of((20, 30))))
    return SwitchConfig(ports={**BUSY, MOVED: PortConfig(PortVlan.access(vid)), TRUNK: trunk})


def tagged(data: bytes, vid: int) -> bytes:
    return data[:12] + b"\x81\x00" + vid.to_bytes(2, "big") + data[12:]


def close_all(stack: ExitStack, *guests: GuestEnd) -> None:
    for guest in guests:
        stack.callback(guest.close)


def test_station_is_forgotten_with_its_vlan_and_others_lose_nothing(
    make_engine: EngineMaker, stack: ExitStack
) -> None:
    engine = make_engine(told(20))
    left, right, moved, trunk = guests = [plug(engine) for _ in range(4)]
    close_all(stack, *guests)
    with running_exchange(left, right):
        for number in range(200):
            vid, other = ((20, 30), (30, 20))[number % 2]
            engine.configure(told(vid))
            assert not [entry for entry in engine.fdb() if entry.port_no == MOVED]

            payload = number.to_bytes(2, "big")
            up = frame(BROADCAST, STATION, payload=b"up" + payload)
            moved.send(up)
            assert trunk.receive() == tagged(up, vid)
            assert [entry.vid for entry in engine.fdb() if entry.mac == STATION] == [vid]

            # What is for it in the other VLAN does not come; in this one it does, as it was learnt.
            before = traffic_of(engine, TRUNK)
            for its in (other, vid):
                trunk.send(tagged(frame(STATION, mac(0x44), payload=b"down" + payload + bytes([its])), its))
            down = frame(STATION, mac(0x44), payload=b"down" + payload + bytes([vid]))
            assert moved.receive() == down
            assert traffic_of(engine, TRUNK) == before + 2
        assert moved.waiting() == trunk.waiting() == []


def test_thousand_ports_in_four_thousand_vlans_are_told_while_others_lose_nothing(
    make_engine: EngineMaker, stack: ExitStack
) -> None:
    engine = make_engine(told(20))
    left, right, moved, trunk = guests = [plug(engine) for _ in range(4)]
    close_all(stack, *guests)
    odd = VidSet.of(vid for vid in range(11, 4000) if vid % 2)
    many = {
        number: PortConfig(PortVlan(11, VidSet.parse("1-4094") - odd, odd)) for number in range(MOVED, 1000)
    }
    none: dict[int, PortConfig] = {}
    with running_exchange(left, right):
        for number in range(10):
            ports = (many, none)[number % 2]
            engine.configure(SwitchConfig(ports={**BUSY, **ports}))
            sent = frame(BROADCAST, STATION, payload=number.to_bytes(1, "big"))
            for vid in (12, 3998):
                moved.send(tagged(sent, vid) if ports else sent)
                assert trunk.receive() == (tagged(sent, vid) if ports else sent)
            moved.send(tagged(sent, 13))
            assert trunk.receive() == (sent if ports else tagged(sent, 13))
