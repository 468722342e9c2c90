"""Mirror sessions: who gets copies, each once, and what a destination may not do."""

from __future__ import annotations

import pytest

from support.vlan_cases import BROADCAST, A, B, C, access, plain, tagged, trunk
from umlab.switch.core import SwitchCore, Verdict
from umlab.switch.counters import DropReason
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import MAX_MIRRORS, MirrorSession, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.vlan import VidSet


def session(
    destination: int, *ports: int, name: str = "m", ingress: bool = True, egress: bool = True
) -> MirrorSession:
    return MirrorSession(name, destination, frozenset(ports), ingress=ingress, egress=egress)


def switch(
    *sessions: MirrorSession, ports: dict[int, PortConfig] | None = None, count: int = 4
) -> SwitchCore:
    core = SwitchCore(SwitchConfig(ports=ports or {}, mirrors=sessions))
    for _ in range(count):
        core.add_port(0)
    return core


def unicast(core: SwitchCore, ingress: int, egress: int) -> tuple[int, ...]:
    """Return where a frame goes to that is for a station at one port."""
    core.receive(egress, plain(source=B), 0)
    return core.receive(ingress, plain(destination=B), 0).egress


class TestCopies:
    @pytest.mark.parametrize(
        ("inward", "outward", "ingress", "egress", "copied"),
        [
            (True, True, 1, 2, True),
            (True, True, 2, 1, True),
            (True, True, 2, 3, False),
            (True, False, 1, 2, True),
            (True, False, 2, 1, False),
            (False, True, 1, 2, False),
            (False, True, 2, 1, True),
        ],
    )
    def test_direction_is_as_the_session_says(
        self, inward: bool, outward: bool, ingress: int, egress: int, copied: bool
    ) -> None:
        core = switch(session(4, 1, ingress=inward, egress=outward))
        assert unicast(core, ingress, egress) == (egress, 4)[: 1 + copied]

    def test_frame_between_two_mirrored_ports_is_copied_once(self) -> None:
        core = switch(session(4, 1, 2, 3))
        assert unicast(core, 1, 2) == (2, 4)
        assert core.receive(1, plain(), 0).egress == (2, 3, 4)

    def test_sessions_with_one_destination_copy_once_and_others_in_their_order(self) -> None:
        core = switch(session(4, 1, name="a"), session(3, 1, name="b"), session(4, 2, name="c"), count=5)
        assert unicast(core, 1, 2) == (2, 4, 3)

    def test_flood_is_copied_where_it_leaves_over_a_mirrored_port(self) -> None:
        core = switch(session(4, 3, ingress=False))
        assert core.receive(1, plain(), 0).egress == (2, 3, 4)
        assert core.receive(3, plain(), 0).egress == (1, 2)

    def test_dropped_frames_are_not_copied(self) -> None:
        core = switch(session(4, 1), ports={1: PortConfig(reserved=ReservedPolicy.BRIDGE)})
        for bad in (
            b"x",
            plain(20_000),
            plain(destination=A),
            plain(destination=bytes.fromhex("0180c2000000")),
        ):
            assert core.receive(1, bad, 0).egress == ()

    def test_copy_has_the_tag_that_the_frame_came_with(self) -> None:
        ports = {1: PortConfig(access(10)), 2: PortConfig(trunk("10")), 4: PortConfig(access(10))}
        core = switch(session(4, 2), ports=ports)
        assert core.receive(1, plain(), 0) == Verdict((2, 4), None, {2: tagged(plain(), 10)})
        assert core.receive(2, tagged(plain(), 10, 5), 0) == Verdict((1, 4), None, {1: plain()})

    def test_vlans_are_copied_whatever_the_port(self) -> None:
        ports = {number: PortConfig(trunk("10-30")) for number in (1, 2)}
        core = switch(MirrorSession("m", 4, vids=VidSet.parse("10,30")), ports=ports)
        assert [core.receive(1, tagged(plain(), vid), 0).egress for vid in (10, 20, 30)] == [
            (2, 4),
            (2,),
            (2, 4),
        ]
        assert core.receive(3, plain(), 0).egress == ()

    def test_session_waits_for_its_ports(self) -> None:
        core = switch(session(4, 1), count=3)
        assert unicast(core, 1, 2) == (2,)
        assert core.add_port(0) == 4
        assert unicast(core, 1, 2) == (2, 4)
        core.remove_port(4, 0)
        assert core.receive(1, plain(), 0).egress == (2, 3)

    def test_monitor_that_is_a_destination_gets_the_copies_and_each_once(self) -> None:
        """It got them twice."""
        core = switch(session(4, 1), count=3)
        core.add_port(0, monitor=True)
        core.add_port(0, monitor=True)
        assert core.receive(1, plain(), 0).egress == (2, 3, 5, 4)
        assert unicast(core, 2, 3) == (3, 5)


class TestDestination:
    def test_what_comes_from_there_is_dropped_and_nothing_is_learnt(self) -> None:
        core = switch(session(4, 1))
        assert core.receive(4, plain(source=C), 0) == Verdict((), DropReason.MIRROR)
        assert core.port_counters(4).drops == {DropReason.MIRROR: 1}
        assert core.fdb(0) == []
        assert core.receive(4, b"x", 0).drop is DropReason.RUNT

    def test_nothing_but_copies_goes_there(self) -> None:
        core = switch(session(4, 1))
        assert core.receive(2, plain(), 0).egress == (1, 3, 4)
        core = switch(session(4, 1, egress=False))
        assert core.receive(2, plain(), 0).egress == (1, 3)
        core.restore([FdbEntry(B, 4, 0)], 0)
        assert core.receive(2, plain(destination=B), 0).egress == (1, 3)

    def test_two_destinations_on_one_cable_make_no_loop(self) -> None:
        """Each copy that came back would be copied again."""
        core = switch(session(3, 1, name="a"), session(4, 1, name="b"))
        assert core.receive(2, plain(destination=BROADCAST), 0).egress == (1, 3, 4)
        for port_no in (3, 4):
            assert core.receive(port_no, plain(), 0) == Verdict((), DropReason.MIRROR)

    def test_port_switches_again_once_the_session_is_over(self) -> None:
        core = switch(session(4, 1))
        core.configure(SwitchConfig())
        assert core.receive(4, plain(source=C), 0).egress == (1, 2, 3)
        assert core.receive(1, plain(destination=C), 0).egress == (4,)
        core.configure(SwitchConfig(mirrors=(session(4, 1),)))
        assert core.receive(2, plain(destination=C), 0).egress == (1, 3, 4)


class TestConfig:
    @pytest.mark.parametrize(
        ("values", "complaint"),
        [
            ({}, "mirror m: no port and no VLAN to copy from"),
            ({"ports": frozenset({4})}, "mirror m: port 4 cannot be copied to itself"),
            (
                {"ports": frozenset({1}), "ingress": False, "egress": False},
                "mirror m: neither ingress nor egress",
            ),
        ],
    )
    def test_session_that_cannot_be_is_refused(self, values: dict[str, object], complaint: str) -> None:
        with pytest.raises(ValueError, match=complaint):
            MirrorSession("m", 4, **values)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("sessions", "complaint"),
        [
            ([session(2, 1), session(3, 1)], "two mirror sessions have one name"),
            ([session(2, 1), session(3, 2, name="n")], "mirror n: port 2 gets the copies of mirror m"),
            ([session(0, 1)], "port 0 is not between 1 and 65535"),
            ([session(1, 65_536)], "port 65536 is not between 1 and 65535"),
            (
                [session(9, 1, name=str(number)) for number in range(MAX_MIRRORS + 1)],
                "at most 8 mirror sessions",
            ),
        ],
    )
    def test_sessions_that_cannot_be_together_are_refused(
        self, sessions: list[MirrorSession], complaint: str
    ) -> None:
        with pytest.raises(ValueError, match=complaint):
            SwitchConfig(mirrors=tuple(sessions))

    @pytest.mark.parametrize("number", [0, -1, 4, 65_536])
    def test_setting_of_a_port_that_cannot_be_is_refused(self, number: int) -> None:
        with pytest.raises(ValueError, match=f"port {number} is not between 5 and 65535"):
            SwitchConfig(first_port_no=5, ports={number: PortConfig()})
