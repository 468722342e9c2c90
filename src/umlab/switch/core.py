"""The reference forwarding core: learns, ages, floods, filters; the normative behaviour of every engine.

It never sleeps, logs or reads a clock, and moves no bytes: it says where a frame goes.  Times given to
one core never go back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from umlab.errors import NoSuchPort, SwitchError
from umlab.switch.counters import DropReason, PortCounters, SwitchCounters
from umlab.switch.events import (
    Event,
    EventQueue,
    FdbFull,
    LinkClosed,
    MacAged,
    MacLearned,
    PortAttached,
    PortDetached,
    StationMoved,
    UnknownUnicast,
)
from umlab.switch.fdb import Fdb, FdbEntry, FdbRecord
from umlab.switch.mirror import MirrorTable
from umlab.switch.model import MIN_FRAME, SECOND_NS, PortConfig, ReservedPolicy, SwitchConfig
from umlab.switch.tag import Tagging, is_admitted, tagging_of

#: Timers fall on whole multiples of this, so that many stations that age apart wake an engine seldom.
SWEEP_TIME_NS = 2 * SECOND_NS
#: What bridges do not forward begins with this; the last byte is up to 0x0F.
RESERVED_PREFIX = b"\x01\x80\xc2\x00\x00"
#: The type of an LLDP frame (IEEE 802.1AB-2016 7.3), which is punted whatever the port's policy.
LLDP_TYPE = b"\x88\xcc"
#: Frames that wait for the control protocols at most,
MAX_PUNTS = 64
#: and bytes of each that they get.
PUNT_SIZE = 2048

_DEFAULT_PORT = PortConfig()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one frame.

    Attributes:
        egress: The ports that it goes to, in port order, then the monitors, then the destinations of the
            mirror sessions in their order.
        drop: Why it goes nowhere; ``None`` also where a flood finds no other port, and for a frame that
            is the control protocols' alone.
        changed: What goes out at the ports where that is not the frame as it came.
    """

    egress: tuple[int, ...]
    drop: DropReason | None = None
    changed: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Punt:
    """A frame for the control protocols.

    Attributes:
        at_ns: When it came.
        port_no: Where it came from.
        frame: As it came, up to ``PUNT_SIZE`` bytes.
    """

    at_ns: int
    port_no: int
    frame: bytes


_DROPS = {reason: Verdict((), reason) for reason in DropReason}
_PUNTED = Verdict(())


class SwitchCore:
    """One switch without its wires.

    Args:
        config: What the switch is told to be.

    Attributes:
        counters: Of the switch; an engine counts unknown senders there.
    """

    __slots__ = (
        "_events",
        "_fdb",
        "_fdb_full",
        "_floods",
        "_mirrors",
        "_monitors",
        "_ports",
        "_punts",
        "_unicasts",
        "config",
        "counters",
    )

    def __init__(self, config: SwitchConfig) -> None:
        self.config = config
        self.counters = SwitchCounters()
        self._ports: dict[int, PortCounters] = {}
        self._monitors: tuple[int, ...] = ()
        self._fdb = Fdb(config.fdb_capacity, config.ageing_time_ns)
        # Set by a refusal, cleared by the next address that is learnt: FdbFull marks the change only.
        self._fdb_full = False
        self._events = EventQueue()
        self._punts: deque[Punt] = deque()
        self._mirrors = MirrorTable(config.mirrors)
        # Verdicts of transparent ports while nothing is mirrored, by ingress (flood) and by egress (unicast),
        # so that none is made for each frame; made anew when ports come or go.
        self._floods: dict[int, Verdict] = {}
        self._unicasts: dict[int, Verdict] = {}

    def configure(self, config: SwitchConfig) -> None:
        """Be told something else: no port is lost.

        Forgotten is what a smaller FDB has no room for, and what was learnt on a port in a VLAN that it is no
        member of any more.

        Raises:
            ValueError: ``first_port_no`` differs, which only a new switch can have.
        """
        if config.first_port_no != self.config.first_port_no:
            raise ValueError("first_port_no cannot be changed while the switch runs")
        self.config = config
        self._mirrors = MirrorTable(config.mirrors)
        self._fdb.keep(lambda record: self._is_member(record.port_no, record.vid))
        self._fdb.configure(config.fdb_capacity, config.ageing_time_ns)
        self._forget_verdicts()

    def add_port(self, now_ns: int, port_no: int | None = None, *, monitor: bool = False) -> int:
        """Make a port and return its number.

        Args:
            now_ns: The engine clock's reading.
            port_no: The number to have, a free one; the lowest free one unless given.
            monitor: It is sent every frame that is forwarded, and nothing is received there.

        Raises:
            SwitchError: The number is taken, or lower than the first.
        """
        if port_no is None:
            port_no = self.config.first_port_no
            while port_no in self._ports:
                port_no += 1
        elif port_no in self._ports or port_no < self.config.first_port_no:
            raise SwitchError(f"port {port_no} cannot be had")
        self._ports[port_no] = PortCounters()
        if monitor:
            self._monitors = tuple(sorted((*self._monitors, port_no)))
        self._forget_verdicts()
        self._events.put_certain(PortAttached(now_ns, port_no))
        return port_no

    def remove_port(self, port_no: int, now_ns: int) -> None:
        """Drop a port, its counters and every address learnt on it.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        if port_no not in self._ports:
            raise NoSuchPort(port_no)
        del self._ports[port_no]
        self._monitors = tuple(number for number in self._monitors if number != port_no)
        self._forget_verdicts()
        self._fdb.remove_port(port_no)
        self._events.put_certain(PortDetached(now_ns, port_no))

    def receive(self, port_no: int, frame: bytes, now_ns: int) -> Verdict:
        """Learn from one frame and say where it goes; never raises on what is in a frame.

        In this order: what is too short or too long is dropped, then what comes from a mirror's destination.
        A frame to a reserved address is dealt with by the port's policy; a copy of one of LLDP goes to the
        control protocols in any case.  The frame's VLAN is found.  Every station that has aged is forgotten,
        the source is learnt, the destination is looked up, both in that VLAN alone.  A frame with the group
        bit in its source is forwarded and not learnt from.

        Args:
            port_no: The port it came from.
            frame: One frame without FCS, of any length.
            now_ns: The engine clock's reading.

        Returns:
            The egress ports, or why there are none.

        Raises:
            NoSuchPort: Nothing is attached at ``port_no`` (an engine's bug, not a guest's doing).

        Source: IEEE 802.1Q-2018 6.9, 8.6 to 8.8.
        """
        port = self._ports.get(port_no)
        if port is None:
            raise NoSuchPort(port_no)
        verdict = self._receive(port_no, frame, now_ns)
        if verdict.drop is None:
            port.count_rx(len(frame))
        else:
            port.count_drop(verdict.drop)
        return verdict

    def link_closed(self, port_no: int, errno: int, now_ns: int) -> None:
        """Report that a port's descriptor came to its end; the port stays until it is removed."""
        self._events.put_certain(LinkClosed(now_ns, port_no, errno))

    def ports(self) -> list[int]:
        """Return the port numbers in order."""
        return sorted(self._ports)

    def port_counters(self, port_no: int) -> PortCounters:
        """Return a port's counters, not a copy: an engine counts there what it sends and drops.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        try:
            return self._ports[port_no]
        except KeyError:
            raise NoSuchPort(port_no) from None

    def fdb(self, now_ns: int) -> list[FdbEntry]:
        """Return the stations that have not aged, oldest first; changes nothing."""
        return self._fdb.entries(now_ns)

    def fdb_size(self) -> int:
        """Return how many addresses are learnt, those that have just aged included."""
        return len(self._fdb)

    def restore(self, entries: Iterable[FdbEntry], now_ns: int) -> None:
        """Learn what another switch knew, where the port is there, the entry alive and the FDB not full.

        Args:
            entries: Oldest first, none from after ``now_ns``.
            now_ns: The engine clock's reading.
        """
        self.handle_timer(now_ns)
        for entry in entries:
            alive = now_ns - self.config.ageing_time_ns <= entry.last_seen_ns <= now_ns
            there = entry.port_no in self._ports and entry.port_no not in self._monitors
            fits = there and self._is_member(entry.port_no, entry.vid)
            if alive and fits and self._fdb.find(entry.mac, entry.vid) is None:
                self._fdb.add(entry.mac, entry.port_no, entry.last_seen_ns, entry.vid)
        self._fdb.sort()

    def flush(self, port_no: int | None = None) -> int:
        """Forget every learnt address, or those of one port, and return how many there were.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        if port_no is not None and port_no not in self._ports:
            raise NoSuchPort(port_no)
        before = len(self._fdb)
        for number in self._ports if port_no is None else (port_no,):
            self._fdb.remove_port(number)
        return before - len(self._fdb)

    def events_waiting(self) -> bool:
        """Tell whether there is an event to take."""
        return len(self._events) > 0

    def next_event(self) -> Event | None:
        """Take the oldest event; ``None`` when there is none."""
        return self._events.next()

    def take_events(self) -> list[Event]:
        """Take all events, oldest first."""
        return self._events.take()

    def take_punts(self) -> list[Punt]:
        """Take the frames that wait for the control protocols, oldest first."""
        punts = list(self._punts)
        self._punts.clear()
        return punts

    def get_timer(self) -> int | None:
        """Return when ``handle_timer`` is to be called, ``None`` for never.

        It is the first multiple of ``SWEEP_TIME_NS`` at which a station has aged.
        """
        expiry_ns = self._fdb.next_expiry_ns()
        return None if expiry_ns is None else -(-expiry_ns // SWEEP_TIME_NS) * SWEEP_TIME_NS

    def handle_timer(self, now_ns: int) -> None:
        """Forget every station that has aged; may be called at any time."""
        for record in self._fdb.expire(now_ns):
            self.counters.aged += 1
            self._events.put_station(MacAged(now_ns, record.mac, record.port_no, record.vid))

    def _receive(self, port_no: int, frame: bytes, now_ns: int) -> Verdict:
        if len(frame) < MIN_FRAME:
            return _DROPS[DropReason.RUNT]
        if len(frame) > self.config.max_frame:
            return _DROPS[DropReason.OVERSIZE]
        if self._mirrors.is_destination(port_no):
            return _DROPS[DropReason.MIRROR]
        port = self.config.ports.get(port_no, _DEFAULT_PORT)
        if frame[:5] == RESERVED_PREFIX and frame[5] < 0x10:
            is_peer = port.reserved is ReservedPolicy.PEER
            if is_peer or frame[12:14] == LLDP_TYPE:
                self._punt(Punt(now_ns, port_no, frame[:PUNT_SIZE]))
            if is_peer:
                return _PUNTED
            if port.reserved is ReservedPolicy.BRIDGE:
                return _DROPS[DropReason.RESERVED]
        tagging = tagging_of(port.vlan, frame)
        if isinstance(tagging, DropReason):
            return _DROPS[tagging]
        return self._switch(port_no, frame, tagging, now_ns)

    def _switch(self, port_no: int, frame: bytes, tagging: Tagging, now_ns: int) -> Verdict:
        self.handle_timer(now_ns)
        vid = tagging.vid
        station = None if frame[6] & 1 else self._learn(frame[6:12], port_no, vid, now_ns)
        if frame[0] & 1 or self.config.hub:
            return self._flood(port_no, frame, tagging)
        known = self._fdb.find(frame[:6], vid)
        if known is None:
            if station is not None:
                self._report_unknown(station, frame[:6], now_ns)
            return self._flood(port_no, frame, tagging)
        if known.port_no == port_no:
            return _DROPS[DropReason.SAME_PORT]
        return self._unicast(port_no, known.port_no, frame, tagging)

    def _punt(self, punt: Punt) -> None:
        if len(self._punts) < MAX_PUNTS:
            self.counters.punted += 1
            self._punts.append(punt)
        else:
            self.counters.punt_lost += 1

    def _learn(self, mac: bytes, port_no: int, vid: int, now_ns: int) -> FdbRecord | None:
        fdb = self._fdb
        station = fdb.find(mac, vid)
        if station is None:
            return self._learn_new(mac, port_no, vid, now_ns)
        if station.port_no != port_no:
            self.counters.moved += 1
            self._events.put_station(StationMoved(now_ns, mac, port_no, station.port_no, vid))
            fdb.move(station, port_no)
        fdb.touch(station, now_ns)
        return station

    def _learn_new(self, mac: bytes, port_no: int, vid: int, now_ns: int) -> FdbRecord | None:
        station = self._fdb.add(mac, port_no, now_ns, vid)
        if station is None:
            self.counters.learn_refused += 1
            if not self._fdb_full:
                self._fdb_full = True
                self._events.put_certain(FdbFull(now_ns, self.config.fdb_capacity))
            return None
        self._fdb_full = False
        self.counters.learned += 1
        self._events.put_station(MacLearned(now_ns, mac, port_no, vid))
        return station

    def _report_unknown(self, station: FdbRecord, destination: bytes, now_ns: int) -> None:
        reported_ns = station.unknown_at_ns
        if reported_ns is None or now_ns - reported_ns > self.config.ageing_time_ns:
            station.unknown_at_ns = now_ns
            self._events.put_station(
                UnknownUnicast(now_ns, station.mac, destination, station.port_no, station.vid)
            )

    def _is_member(self, port_no: int, vid: int) -> bool:
        """Tell whether frames of a VLAN, or of the transparent ports for 0, may leave from a port."""
        if self._mirrors.is_destination(port_no):
            return False
        vlan = self.config.ports.get(port_no, _DEFAULT_PORT).vlan
        return is_admitted(vlan, vid)

    def _flood(self, port_no: int, frame: bytes, tagging: Tagging) -> Verdict:
        if tagging.vid or self.config.mirrors:
            return self._verdict(port_no, self._flood_ports(port_no, tagging.vid), frame, tagging)
        verdict = self._floods.get(port_no)
        if verdict is None:
            verdict = self._verdict(port_no, self._flood_ports(port_no, 0), frame, tagging)
            self._floods[port_no] = verdict
        return verdict

    def _flood_ports(self, port_no: int, vid: int) -> list[int]:
        others = sorted(self._ports.keys() - {port_no, *self._monitors})
        return [other for other in others if self._is_member(other, vid)]

    def _unicast(self, port_no: int, egress: int, frame: bytes, tagging: Tagging) -> Verdict:
        if tagging.vid or self.config.mirrors:
            return self._verdict(port_no, [egress], frame, tagging)
        verdict = self._unicasts.get(egress)
        if verdict is None:
            verdict = self._unicasts[egress] = self._verdict(port_no, [egress], frame, tagging)
        return verdict

    def _verdict(self, port_no: int, egress: list[int], frame: bytes, tagging: Tagging) -> Verdict:
        """Say that a frame goes to these ports, each in its form, and to whoever gets a copy."""
        copies = self._mirrors.destinations(port_no, egress, tagging.vid)
        changed: dict[int, bytes] = {}
        if tagging.vid:
            for number in egress:
                vlan = self.config.ports[number].vlan
                assert vlan is not None
                form = tagging.form(frame, vlan)
                if form is not frame:
                    changed[number] = form
        there = [number for number in copies if number in self._ports]
        monitors = [number for number in self._monitors if not self._mirrors.is_destination(number)]
        return Verdict((*egress, *monitors, *there), None, changed)

    def _forget_verdicts(self) -> None:
        self._floods.clear()
        self._unicasts.clear()
