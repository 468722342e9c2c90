"""A switch whose ports can be reserved: how many there are, and who may have which."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field

from umlab.daemon.switch import SwitchService
from umlab.errors import SwitchError
from umlab.switch.counters import PortCounters
from umlab.switch.model import PortConfig, SwitchConfig
from umlab.switch.vlan import MAX_VID, PortVlan, VidSet
from umlab.transports.contract import Access, Listener, Session
from umlab.wire.vde_console import NO_VLAN

#: The VID that VLAN 0 has in the engine, in which every port begins; in VDE nobody can have it.
_VID_OF_0 = MAX_VID
#: The highest VLAN in VDE.
MAX_VLAN = _VID_OF_0 - 1


@dataclass(slots=True)
class Port:
    """A port that somebody has made, or has had.

    Attributes:
        allocatable: Whether a client that asks for no port may get it.
        uid: The only user who may have it.
        gid: The only group whose members may have it.
        counted: What its counters were when they were last reset.
        untagged: The VLAN of its frames without tags, or ``NO_VLAN``.
        tagged: The VLANs of its frames with tags.
    """

    allocatable: bool = True
    uid: int | None = None
    gid: int | None = None
    counted: PortCounters = field(default_factory=PortCounters)
    untagged: int = 0
    tagged: set[int] = field(default_factory=set)

    @property
    def vlans(self) -> set[int]:
        """All its VLANs."""
        return self.tagged | {self.untagged} - {NO_VLAN}

    def permits(self, session: Session) -> bool:
        """Return whether a session's peer may have it."""
        uids = () if self.uid is None else (self.uid,)
        gids = () if self.gid is None else (self.gid,)
        return Access(uids=uids, gids=gids).permits(session.peer)


class VdeSwitch(SwitchService):
    """A switch with the ports of ``vde_switch``.

    Args:
        config: What it is told to be.
        listeners: Where clients attach.
        end: The number behind its last port's; the first has 1.

    Attributes:
        table: Its ports by number: those that were made and those that were once taken.
        vlans: The VLANs that there are.
        hub: Whether it forwards every frame to every port, of whatever VLAN.
    """

    def __init__(self, config: SwitchConfig, listeners: Iterable[Listener], end: int) -> None:
        super().__init__("vde_switch", config, listeners)
        self.table: dict[int, Port] = {}
        self.vlans = {0}
        self.hub = config.hub
        self._end = end

    @property
    def end(self) -> int:
        """The number behind its last port's."""
        return self._end

    def set_end(self, end: int) -> None:
        """Have more ports or fewer.

        Raises:
            SwitchError: A port is there that would not be any more.
        """
        if any(port_no >= end for port_no in self.table):
            raise SwitchError("a port with a higher number is there")
        self._end = end
        self.apply()

    def apply(self) -> None:
        """Let the engine know of a change in ``table``, ``vlans`` or ``hub``.

        While there is no VLAN beside 0 and each port has that one, no port looks at tags.
        """
        ports = {}
        aware = self.vlans != {0} or any(port.untagged for port in self.table.values())
        if aware and not self.hub:
            # A VLAN that nobody has.
            nowhere = next(vlan for vlan in range(1, MAX_VLAN + 1) if vlan not in self.vlans)
            other = PortConfig(_port_vlan(Port(), nowhere))
            ports = dict.fromkeys(range(1, self._end), other)
            for port_no, port in self.table.items():
                ports[port_no] = PortConfig(_port_vlan(port, nowhere))
        before = self.fdb() if bool(ports) != bool(self.config.ports) else []
        self.configure(dataclasses.replace(self.config, hub=self.hub, ports=ports))
        # What was learnt in VLAN 0 stays true when that is another VID from now on.
        self.engine.restore_fdb(
            dataclasses.replace(entry, vid=_VID_OF_0 if ports else 0)
            for entry in before
            if vde_vlan(entry.vid) == 0
        )

    def unused_port(self) -> int | None:
        """Return the lowest number that no port has yet, ``None`` where there is none."""
        return next((port_no for port_no in range(1, self._end) if port_no not in self.table), None)

    def choose_port(self, session: Session) -> int:
        """Give a session the port that it asks for, or the lowest free one where it asks for none.

        Where the port that it asks for is taken, it gets another one as well.

        Raises:
            SwitchError: It asks for what is not there or not for it, or all ports are taken.
        """
        taken = {port.port_no for port in self.ports()}
        wanted = session.wanted_port_no
        if wanted is not None:
            if not 1 <= wanted < self._end:
                raise SwitchError(f"there is no port {wanted}")
            if not self.table.get(wanted, Port()).permits(session):
                raise SwitchError(f"port {wanted} is for another user")
        if wanted is None or wanted in taken:
            wanted = self._free_port(session, taken)
        self.table.setdefault(wanted, Port()).counted = PortCounters()
        return wanted

    def _free_port(self, session: Session, taken: set[int]) -> int:
        for port_no in range(1, self._end):
            port = self.table.get(port_no, Port())
            if port_no not in taken and port.allocatable and port.permits(session):
                return port_no
        raise SwitchError("every port is taken")


def vde_vlan(vid: int) -> int:
    """Return the VLAN that a VID of the engine, or 0 for no VLAN, is in VDE."""
    return 0 if vid == _VID_OF_0 else vid


def _port_vlan(port: Port, nowhere: int) -> PortVlan:
    """Return what the engine is told of a port.

    Args:
        port: The port.
        nowhere: A VLAN for a port of none: no frame is of it, as no port takes any.
    """
    tagged = VidSet.of(port.tagged)
    if port.untagged != NO_VLAN:
        return PortVlan.trunk(tagged, native=port.untagged or _VID_OF_0)
    if tagged:
        return PortVlan.trunk(tagged)
    return PortVlan(untagged=VidSet.of([nowhere]))
