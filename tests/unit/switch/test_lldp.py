"""The LLDP machine: neighbours come, change, age and go; what the switch says, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from umlab.errors import RemoteProtocolError
from umlab.switch.control.lldp import (
    MAX_NEIGHBOURS,
    RECEIVE_BURST,
    TICK_NS,
    TIME_TO_LIVE,
    LldpMachine,
    Neighbour,
    NeighbourChanged,
    NeighbourGone,
    NeighbourSeen,
    Station,
)
from umlab.switch.model import SECOND_NS
from umlab.wire.lldp import (
    NEAREST_BRIDGE,
    Capabilities,
    Identifier,
    Lldpdu,
    ManagementAddress,
    VlanName,
    parse_frame,
    serialize_frame,
)

OWN, PEER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
STATION = Station(OWN, "lan", "lab/lan", "umlab 1")
PDU = Lldpdu(Identifier(4, PEER), Identifier(5, b"eth0"), 120, system_name=b"left")
SHOWN = ("02:00:00:00:00:02", "eth0", "left")
S = SECOND_NS


def machine(*ports: int) -> LldpMachine:
    """Return a machine with ports, at second 0."""
    made = LldpMachine(STATION, lambda port_no: f"guest {port_no}")
    for port_no in ports:
        made.add_port(port_no, 0)
    return made


def frame(pdu: Lldpdu = PDU) -> bytes:
    """Return a neighbour's frame."""
    return serialize_frame(PEER, pdu)


def other(number: int) -> Lldpdu:
    """Return what another neighbour says."""
    return replace(PDU, chassis_id=Identifier(7, b"%d" % number))


def said(lldp: LldpMachine) -> list[tuple[int, int]]:
    """Take the frames that go out, as port and time to live."""
    return [(port_no, parse_frame(each).ttl) for port_no, each in lldp.frames_to_send()]


def times_said(lldp: LldpMachine, until_ns: int) -> list[float]:
    """Return the seconds at which something is said, when every timer is heeded at once."""
    times = []
    while (timer := lldp.get_timer()) is not None and timer <= until_ns:
        lldp.handle_timer(timer)
        times += [timer / S for _ in lldp.frames_to_send()]
    return times


# Neighbours.


def test_neighbour_is_seen_and_shown() -> None:
    lldp = machine(1, 2)
    pdu = replace(
        PDU,
        port_description=b"\x1b[31mup",
        system_description=b"Linux",
        capabilities=Capabilities(0x14, 0x04),
        management_addresses=(ManagementAddress(1, b"\x0a\0\0\x01"),),
        port_vid=1,
        vlan_names=(VlanName(10, b"blue"),),
    )
    lldp.receive(1, frame(pdu), 5)
    assert lldp.take_events() == [NeighbourSeen(5, 1, *SHOWN)]
    assert lldp.take_events() == []
    shown = Neighbour(
        chassis_id="02:00:00:00:00:02",
        port_id="eth0",
        ttl=120,
        system_name="left",
        system_description="Linux",
        port_description=r"\x1b[31mup",
        capabilities=("bridge",),
        management_addresses=("10.0.0.1",),
        port_vid=1,
        vlan_names={10: "blue"},
    )
    assert lldp.neighbours(1) == (shown,)
    assert lldp.neighbours(2) == lldp.neighbours(3) == ()
    assert lldp.frames_to_send() == []


def test_neighbour_that_says_the_same_again_is_no_news() -> None:
    lldp = machine(1)
    lldp.receive(1, frame(), 0)
    lldp.take_events()
    lldp.receive(1, frame(), 30 * S)
    assert lldp.take_events() == []
    lldp.receive(1, frame(replace(PDU, port_description=b"up")), 60 * S)
    assert lldp.take_events() == [NeighbourChanged(60 * S, 1, *SHOWN)]


def test_neighbour_ages_when_its_time_to_live_has_passed_since_the_last_time() -> None:
    lldp = machine(1)
    lldp.receive(1, frame(), 0)
    lldp.receive(1, frame(), 100 * S)
    lldp.take_events()
    assert lldp.get_timer() == 120 * S
    lldp.handle_timer(120 * S)
    assert lldp.take_events() == []
    assert lldp.get_timer() == 220 * S
    lldp.handle_timer(220 * S - 1)
    assert len(lldp.neighbours(1)) == 1
    lldp.handle_timer(220 * S)
    assert lldp.take_events() == [NeighbourGone(220 * S, 1, *SHOWN, "aged")]
    assert lldp.neighbours(1) == ()
    assert lldp.get_timer() is None


def test_neighbour_that_has_aged_unnoticed_is_new() -> None:
    lldp = machine(1)
    lldp.receive(1, frame(), 0)
    lldp.receive(1, frame(), 120 * S)
    kinds = [type(event) for event in lldp.take_events()]
    assert kinds == [NeighbourSeen, NeighbourGone, NeighbourSeen]


def test_neighbour_takes_back_what_it_said() -> None:
    lldp = machine(1)
    farewell = frame(Lldpdu(PDU.chassis_id, PDU.port_id, 0))
    lldp.receive(1, farewell, 1)
    assert lldp.take_events() == []
    lldp.receive(1, frame(), 2)
    lldp.receive(1, farewell, 3)
    assert lldp.take_events() == [NeighbourSeen(2, 1, *SHOWN), NeighbourGone(3, 1, *SHOWN, "shutdown")]
    assert lldp.neighbours(1) == ()


def test_neighbours_go_with_their_port() -> None:
    lldp = machine(1, 2)
    lldp.receive(1, frame(), 1)
    lldp.receive(2, frame(), 1)
    lldp.take_events()
    lldp.remove_port(1, 7)
    lldp.remove_port(1, 8)
    assert lldp.take_events() == [NeighbourGone(7, 1, *SHOWN, "detached")]
    assert len(lldp.neighbours(2)) == 1


def test_frame_of_what_was_plugged_in_before_is_not_the_next_ones() -> None:
    lldp = machine(1)
    lldp.remove_port(1, 10)
    lldp.receive(1, frame(), 10)
    lldp.add_port(1, 20)
    lldp.receive(1, frame(), 10)
    assert lldp.neighbours(1) == ()
    lldp.receive(1, frame(), 15)
    assert len(lldp.neighbours(1)) == 1


def test_neighbours_of_a_port_are_bounded_and_one_too_many_is_refused() -> None:
    lldp = machine(1, 2)
    for number in range(MAX_NEIGHBOURS + 2):
        lldp.receive(1, frame(other(number)), number)
    lldp.receive(2, frame(other(99)), 0)
    assert lldp.refused == 2
    assert [each.chassis_id for each in lldp.neighbours(1)] == [str(each) for each in range(MAX_NEIGHBOURS)]
    assert len(lldp.neighbours(2)) == 1
    lldp.receive(1, frame(replace(other(0), system_name=b"new")), 50)
    assert isinstance(lldp.take_events()[-1], NeighbourChanged)


def test_frames_that_come_too_fast_are_refused_and_others_are_not() -> None:
    lldp = machine(1, 2)
    for _ in range(RECEIVE_BURST + 11):
        lldp.receive(1, frame(), S)
    assert lldp.refused == 10
    lldp.receive(2, frame(), S)
    lldp.receive(1, frame(), 2 * S)
    assert lldp.refused == 10


@pytest.mark.parametrize("data", [NEAREST_BRIDGE + PEER + b"\x88\xcc", frame()[:-3], frame()[:20]])
def test_malformed_frame_is_counted_and_changes_nothing(data: bytes) -> None:
    lldp = machine(1)
    lldp.receive(1, frame(), 1)
    with pytest.raises(RemoteProtocolError):
        lldp.receive(1, data, 2)
    assert (lldp.malformed, lldp.refused) == (1, 0)
    assert len(lldp.neighbours(1)) == 1


def test_malformed_part_is_counted_and_the_rest_holds() -> None:
    lldp = machine(1)
    lldp.receive(1, frame().removesuffix(b"\0\0") + b"\x0e\x00", 1)
    assert lldp.malformed == 1
    assert lldp.neighbours(1)[0].system_name == "left"


@pytest.mark.parametrize(
    "data", [b"\x01\x80\xc2\0\0\0" + PEER + b"\0\x26BB\x03", b"", frame()[:12] + b"\x88\x8e"]
)
def test_frame_of_another_protocol_is_passed_over(data: bytes) -> None:
    lldp = machine(1)
    lldp.receive(1, data, 1)
    assert (lldp.malformed, lldp.refused, lldp.neighbours(1)) == (0, 0, ())


# What the switch says.


def test_nothing_is_said_unless_it_is_to() -> None:
    lldp = machine(1)
    lldp.send(False, 1)
    lldp.receive(1, frame(), 1)
    lldp.handle_timer(60 * S)
    assert lldp.frames_to_send() == []


def test_what_is_said() -> None:
    lldp = machine(7)
    lldp.send(True, 0)
    ((port_no, data),) = lldp.frames_to_send()
    assert port_no == 7
    assert (data[:6], data[6:12]) == (NEAREST_BRIDGE, OWN)
    assert parse_frame(data) == Lldpdu(
        Identifier(4, OWN),
        Identifier(5, b"lan:7"),
        121,
        b"guest 7",
        b"lab/lan",
        b"umlab 1",
        Capabilities(4, 4),
    )


def test_long_names_are_cut() -> None:
    lldp = LldpMachine(replace(STATION, system_name="n" * 300), lambda port_no: "d" * 300)
    lldp.add_port(1, 0)
    lldp.send(True, 0)
    ((_, data),) = lldp.frames_to_send()
    pdu = parse_frame(data)
    assert (pdu.system_name, pdu.port_description) == (b"n" * 255, b"d" * 255)


def test_new_port_is_told_four_times_and_then_every_half_minute() -> None:
    lldp = machine()
    lldp.send(True, 0)
    assert lldp.get_timer() is None
    lldp.add_port(1, 0)
    assert said(lldp) == [(1, TIME_TO_LIVE)]
    assert times_said(lldp, 100 * S) == [1, 2, 3, 33, 63, 93]


def test_timer_that_comes_early_does_nothing() -> None:
    lldp = machine(1)
    lldp.send(True, 0)
    lldp.frames_to_send()
    lldp.handle_timer(S - 1)
    assert lldp.frames_to_send() == []
    assert times_said(lldp, S) == [1]


def test_timers_are_whole_ticks() -> None:
    lldp = machine()
    lldp.send(True, 0)
    lldp.add_port(1, 1)
    lldp.add_port(2, TICK_NS - 1)
    lldp.frames_to_send()
    assert lldp.get_timer() == S + TICK_NS
    assert times_said(lldp, 2 * S) == [1.25, 1.25]


def test_new_neighbour_is_told_soon_and_an_old_one_is_not() -> None:
    lldp = machine(1)
    lldp.send(True, 0)
    assert times_said(lldp, 40 * S)[-1] == 33
    lldp.receive(1, frame(), 40 * S)
    assert times_said(lldp, 50 * S) == [41, 42, 43, 44]
    lldp.receive(1, frame(), 50 * S)
    assert times_said(lldp, 74 * S) == [74]


def test_ever_new_neighbours_do_not_put_it_off() -> None:
    lldp = machine(1)
    lldp.send(True, 0)
    lldp.frames_to_send()
    for number in range(5):
        lldp.receive(1, frame(other(number)), number * S // 5)
    assert times_said(lldp, S) == [1]


def test_end_is_told_at_every_port_once() -> None:
    lldp = machine(1, 2)
    lldp.send(True, 0)
    lldp.send(True, 0)
    assert said(lldp) == [(1, TIME_TO_LIVE), (2, TIME_TO_LIVE)]
    lldp.send(False, 5 * S)
    lldp.send(False, 6 * S)
    frames = lldp.frames_to_send()
    assert [parse_frame(data) for _, data in frames] == [
        Lldpdu(Identifier(4, OWN), Identifier(5, b"lan:%d" % port_no), 0) for port_no in (1, 2)
    ]
    lldp.handle_timer(60 * S)
    assert said(lldp) == []
    assert lldp.get_timer() is None
    lldp.send(True, 61 * S)
    assert said(lldp) == [(1, TIME_TO_LIVE), (2, TIME_TO_LIVE)]


def test_port_that_is_gone_is_told_nothing() -> None:
    lldp = machine(1)
    lldp.send(True, 0)
    lldp.frames_to_send()
    lldp.remove_port(1, S)
    lldp.handle_timer(60 * S)
    lldp.send(False, 61 * S)
    assert lldp.frames_to_send() == []
