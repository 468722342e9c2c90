"""LLDP of one switch: who is at the other ends of its ports, and what it says of itself when it is to.

A neighbour is known from the first LLDPDU of its chassis and port until its time to live has passed, it takes
back what it said, or the port is gone.  A switch that sends says the same at every port, each under a name of
its own: four times a second apart where a port or a neighbour is new, and then every half minute.

Source: IEEE 802.1AB-2016 9.1, 9.2 and table 9-1 (the default times).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from umlab.errors import RemoteProtocolError
from umlab.switch.model import SECOND_NS
from umlab.wire.lldp import (
    BRIDGE,
    CHASSIS_MAC,
    MAX_TEXT,
    PORT_INTERFACE_NAME,
    Capabilities,
    Identifier,
    Lldpdu,
    address_text,
    capability_names,
    chassis_text,
    is_lldp,
    parse_frame,
    port_text,
    serialize_frame,
)
from umlab.wire.text import printable_line

#: Nanoseconds between two LLDPDUs of ours,
SEND_TIME_NS = 30 * SECOND_NS
#: and seconds that they hold: four of those times, and one more.
TIME_TO_LIVE = 121
#: So many go out first,
FAST_COUNT = 4
#: so far apart.
FAST_TIME_NS = SECOND_NS
#: Neighbours of a port at most; there may be a segment of stations behind it.
MAX_NEIGHBOURS = 16
#: Frames of a port that are looked at in one go,
RECEIVE_BURST = 64
#: and the time after which there is room for one more.
RECEIVE_TIME_NS = SECOND_NS // 32
#: Timers fall on whole multiples of this, so that many ports are dealt with together.
TICK_NS = SECOND_NS // 4


@dataclass(frozen=True, slots=True)
class Neighbour:
    """What a neighbour says of itself, as lines that a terminal shows as they are; missing ones are empty.

    Attributes:
        chassis_id: Its own identifier, such as an address,
        port_id: and that of its port at the other end.
        ttl: Seconds that all of it holds unless it is said again.
        system_name: Its name.
        system_description: What it runs.
        port_description: What its port is.
        capabilities: What it is, such as ``bridge``.
        management_addresses: Where it is managed.
        port_vid: The VLAN of its untagged frames, 0 for none; ``None`` where it does not say.
        vlan_names: VLANs of its port, by number.
    """

    chassis_id: str
    port_id: str
    ttl: int
    system_name: str = ""
    system_description: str = ""
    port_description: str = ""
    capabilities: tuple[str, ...] = ()
    management_addresses: tuple[str, ...] = ()
    port_vid: int | None = None
    vlan_names: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NeighbourSeen:
    """A port has a new neighbour."""

    at_ns: int
    port_no: int
    chassis_id: str
    port_id: str
    system_name: str


@dataclass(frozen=True, slots=True)
class NeighbourChanged:
    """A neighbour says something else than before."""

    at_ns: int
    port_no: int
    chassis_id: str
    port_id: str
    system_name: str


@dataclass(frozen=True, slots=True)
class NeighbourGone:
    """A neighbour is known no more.

    Attributes:
        cause: It has ``aged``, taken back what it said (``shutdown``), or its port was ``detached``.
    """

    at_ns: int
    port_no: int
    chassis_id: str
    port_id: str
    system_name: str
    cause: Literal["aged", "shutdown", "detached"]


NeighbourEvent = NeighbourSeen | NeighbourChanged | NeighbourGone


@dataclass(frozen=True, slots=True)
class Station:
    """What the switch says of itself.

    Attributes:
        mac: Its address, 6 bytes.
        switch: Its name; a port's is this, a colon and the port's number.
        system_name: The name of the switch as a whole.
        system_description: What it runs.
    """

    mac: bytes
    switch: str
    system_name: str
    system_description: str


@dataclass(slots=True)
class _Entry:
    neighbour: Neighbour
    expires_ns: int


@dataclass(slots=True)
class _Port:
    """One port.

    Attributes:
        neighbours: By chassis and port.
        send_ns: When to send next, ``None`` for never.
        fast: How often that is to be soon after the last time.
        allowed_ns: From when on it has the whole ``RECEIVE_BURST`` again.
    """

    neighbours: dict[tuple[Identifier, Identifier], _Entry] = field(default_factory=dict)
    send_ns: int | None = None
    fast: int = 0
    allowed_ns: int = 0


class LldpMachine:
    """Neighbours of all ports, and the frames that go out.

    After each call that is told the time, ``frames_to_send`` and ``take_events`` are to be emptied.

    Args:
        station: What is said.
        describe: Says what is plugged in at a port; called whenever something is said there.

    Attributes:
        sending: Whether anything is said.
        malformed: Frames that are no LLDP or have something in them that is not.
        refused: Frames that came too fast, or from one neighbour too many.
    """

    def __init__(self, station: Station, describe: Callable[[int], str]) -> None:
        self.sending = False
        self.malformed = 0
        self.refused = 0
        self._station = station
        self._describe = describe
        self._ports: dict[int, _Port] = {}
        #: When the last port of a number was removed: what came until then is not the next one's.
        self._removed_ns: dict[int, int] = {}
        self._events: list[NeighbourEvent] = []
        self._frames: list[tuple[int, bytes]] = []
        #: No later than the first thing to do.
        self._timer_ns: int | None = None

    def add_port(self, port_no: int, now_ns: int) -> None:
        """Have a port from now on."""
        port = self._ports[port_no] = _Port()
        if self.sending:
            self._begin(port_no, port, now_ns)

    def remove_port(self, port_no: int, now_ns: int) -> None:
        """Lose a port and its neighbours, if it is there."""
        port = self._ports.pop(port_no, None)
        if port is None:
            return
        self._removed_ns[port_no] = now_ns
        for entry in port.neighbours.values():
            self._report_gone(port_no, entry.neighbour, now_ns, "detached")

    def send(self, sending: bool, now_ns: int) -> None:
        """Begin to say something at every port, or take it back and end."""
        if sending == self.sending:
            return
        self.sending = sending
        for port_no, port in self._ports.items():
            if sending:
                self._begin(port_no, port, now_ns)
            else:
                port.send_ns = None
                self._frames.append((port_no, self._frame(port_no, 0)))

    def receive(self, port_no: int, frame: bytes, now_ns: int) -> None:
        """Take a frame that the switch was sent; one that is for another protocol is passed over.

        Args:
            port_no: Where it came from.
            frame: As it came.
            now_ns: When it came.

        Raises:
            RemoteProtocolError: It is malformed, which has been counted.
        """
        port = self._ports.get(port_no)
        if port is None or now_ns <= self._removed_ns.get(port_no, -1) or not is_lldp(frame):
            return
        if port.allowed_ns - now_ns > RECEIVE_BURST * RECEIVE_TIME_NS:
            self.refused += 1
            return
        port.allowed_ns = max(port.allowed_ns, now_ns) + RECEIVE_TIME_NS
        try:
            pdu = parse_frame(frame)
        except RemoteProtocolError:
            self.malformed += 1
            raise
        if pdu.passed_over:
            self.malformed += 1
        self._expire(port_no, port, now_ns)
        self._take(port_no, port, pdu, now_ns)

    def neighbours(self, port_no: int) -> tuple[Neighbour, ...]:
        """Return the neighbours of a port, the longest known first."""
        port = self._ports.get(port_no)
        return () if port is None else tuple(entry.neighbour for entry in port.neighbours.values())

    def frames_to_send(self) -> list[tuple[int, bytes]]:
        """Take the frames that are to go out, each with the number of its port."""
        frames, self._frames = self._frames, []
        return frames

    def take_events(self) -> list[NeighbourEvent]:
        """Take all events, oldest first."""
        events, self._events = self._events, []
        return events

    def get_timer(self) -> int | None:
        """Return when ``handle_timer`` is to be called, ``None`` for never."""
        return None if self._timer_ns is None else -(-self._timer_ns // TICK_NS) * TICK_NS

    def handle_timer(self, now_ns: int) -> None:
        """Say what is to be said, and forget neighbours whose time has passed; may be called at any time."""
        self._timer_ns = None
        for port_no, port in self._ports.items():
            self._expire(port_no, port, now_ns)
            for entry in port.neighbours.values():
                self._wake_at(entry.expires_ns)
            if port.send_ns is not None:
                if port.send_ns <= now_ns:
                    self._say(port_no, port, now_ns)
                self._wake_at(port.send_ns)

    def _take(self, port_no: int, port: _Port, pdu: Lldpdu, now_ns: int) -> None:
        key = (pdu.chassis_id, pdu.port_id)
        known = port.neighbours.get(key)
        if pdu.ttl == 0:
            if known is not None:
                del port.neighbours[key]
                self._report_gone(port_no, known.neighbour, now_ns, "shutdown")
            return
        if known is None and len(port.neighbours) >= MAX_NEIGHBOURS:
            self.refused += 1
            return
        entry = _Entry(_neighbour(pdu), now_ns + pdu.ttl * SECOND_NS)
        port.neighbours[key] = entry
        self._wake_at(entry.expires_ns)
        if known is None:
            self._report(NeighbourSeen, port_no, entry.neighbour, now_ns)
            if port.send_ns is not None:
                # It is to know of us as soon as we know of it.
                port.fast = FAST_COUNT
                port.send_ns = min(port.send_ns, now_ns + FAST_TIME_NS)
                self._wake_at(port.send_ns)
        elif known.neighbour != entry.neighbour:
            self._report(NeighbourChanged, port_no, entry.neighbour, now_ns)

    def _expire(self, port_no: int, port: _Port, now_ns: int) -> None:
        for key, entry in list(port.neighbours.items()):
            if entry.expires_ns <= now_ns:
                del port.neighbours[key]
                self._report_gone(port_no, entry.neighbour, now_ns, "aged")

    def _begin(self, port_no: int, port: _Port, now_ns: int) -> None:
        port.fast = FAST_COUNT
        self._say(port_no, port, now_ns)

    def _say(self, port_no: int, port: _Port, now_ns: int) -> None:
        self._frames.append((port_no, self._frame(port_no, TIME_TO_LIVE)))
        port.fast = max(port.fast - 1, 0)
        port.send_ns = now_ns + (FAST_TIME_NS if port.fast else SEND_TIME_NS)
        self._wake_at(port.send_ns)

    def _frame(self, port_no: int, ttl: int) -> bytes:
        station = self._station
        pdu = Lldpdu(
            Identifier(CHASSIS_MAC, station.mac),
            Identifier(PORT_INTERFACE_NAME, f"{station.switch}:{port_no}".encode()),
            ttl,
        )
        if ttl:
            pdu = replace(
                pdu,
                port_description=self._describe(port_no).encode()[:MAX_TEXT],
                system_name=station.system_name.encode()[:MAX_TEXT],
                system_description=station.system_description.encode()[:MAX_TEXT],
                capabilities=Capabilities(BRIDGE, BRIDGE),
            )
        return serialize_frame(station.mac, pdu)

    def _wake_at(self, at_ns: int) -> None:
        self._timer_ns = at_ns if self._timer_ns is None else min(self._timer_ns, at_ns)

    def _report(
        self, kind: type[NeighbourSeen | NeighbourChanged], port_no: int, neighbour: Neighbour, now_ns: int
    ) -> None:
        self._events.append(
            kind(now_ns, port_no, neighbour.chassis_id, neighbour.port_id, neighbour.system_name)
        )

    def _report_gone(
        self, port_no: int, neighbour: Neighbour, now_ns: int, cause: Literal["aged", "shutdown", "detached"]
    ) -> None:
        self._events.append(
            NeighbourGone(
                now_ns, port_no, neighbour.chassis_id, neighbour.port_id, neighbour.system_name, cause
            )
        )


def _neighbour(pdu: Lldpdu) -> Neighbour:
    return Neighbour(
        chassis_id=chassis_text(pdu.chassis_id),
        port_id=port_text(pdu.port_id),
        ttl=pdu.ttl,
        system_name=printable_line(pdu.system_name),
        system_description=printable_line(pdu.system_description),
        port_description=printable_line(pdu.port_description),
        capabilities=() if pdu.capabilities is None else capability_names(pdu.capabilities.enabled),
        management_addresses=tuple(
            address_text(each.family, each.address) for each in pdu.management_addresses
        ),
        port_vid=pdu.port_vid,
        vlan_names={vid: printable_line(name) for vid, name in pdu.vlan_names},
    )
