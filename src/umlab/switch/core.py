"""The reference forwarding core: learns, ages, floods, filters; the normative behaviour of every engine.

It never sleeps, logs or reads a clock, and moves no bytes: it says where a frame goes.  Times given to
one core never go back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

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
from umlab.switch.model import MIN_FRAME, SECOND_NS, SwitchConfig

#: Timers fall on whole multiples of this, so that many stations that age apart wake an engine seldom.
SWEEP_TIME_NS = 2 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of one frame.

    Attributes:
        egress: The ports that it goes to, in port order, and then the monitors.
        drop: Why it goes nowhere; ``None`` also where a flood finds no other port.
    """

    egress: tuple[int, ...]
    drop: DropReason | None = None


_RUNT = Verdict((), DropReason.RUNT)
_OVERSIZE = Verdict((), DropReason.OVERSIZE)
_SAME_PORT = Verdict((), DropReason.SAME_PORT)


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
        "_monitors",
        "_ports",
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
        # Verdicts by ingress (flood) and by egress (unicast), so that none is made for each frame; made
        # anew when ports come or go.
        self._floods: dict[int, Verdict] = {}
        self._unicasts: dict[int, Verdict] = {}

    def configure(self, config: SwitchConfig) -> None:
        """Be told something else: no port is lost, and no address but what a smaller FDB has no room for.

        Raises:
            ValueError: ``first_port_no`` differs, which only a new switch can have.
        """
        if config.first_port_no != self.config.first_port_no:
            raise ValueError("first_port_no cannot be changed while the switch runs")
        self.config = config
        self._fdb.configure(config.fdb_capacity, config.ageing_time_ns)

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

        First every station that has aged is forgotten, then the source is learnt, then the destination
        is looked up.  A frame with the group bit in its source is forwarded and not learnt from.

        Args:
            port_no: The port it came from.
            frame: One frame without FCS, of any length.
            now_ns: The engine clock's reading.

        Returns:
            The egress ports, or why there are none.

        Raises:
            NoSuchPort: Nothing is attached at ``port_no`` (an engine's bug, not a guest's doing).

        Source: IEEE 802.1Q-2018 8.6 to 8.8, without VLANs; reserved group addresses are forwarded.
        """
        port = self._ports.get(port_no)
        if port is None:
            raise NoSuchPort(port_no)
        size = len(frame)
        if size < MIN_FRAME:
            port.count_drop(DropReason.RUNT)
            return _RUNT
        config = self.config
        if size > config.max_frame:
            port.count_drop(DropReason.OVERSIZE)
            return _OVERSIZE
        verdict = self._switch(port_no, frame, now_ns)
        if verdict.drop is None:
            port.rx_frames += 1
            port.rx_bytes += size
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
            if alive and there and self._fdb.find(entry.mac) is None:
                self._fdb.add(entry.mac, entry.port_no, entry.last_seen_ns)
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
            self._events.put_station(MacAged(now_ns, record.mac, record.port_no))

    def _switch(self, port_no: int, frame: bytes, now_ns: int) -> Verdict:
        self.handle_timer(now_ns)
        station = None if frame[6] & 1 else self._learn(frame[6:12], port_no, now_ns)
        if frame[0] & 1 or self.config.hub:
            return self._flood(port_no)
        known = self._fdb.find(frame[:6])
        if known is None:
            if station is not None:
                self._report_unknown(station, frame[:6], now_ns)
            return self._flood(port_no)
        if known.port_no == port_no:
            return _SAME_PORT
        return self._unicast(known.port_no)

    def _learn(self, mac: bytes, port_no: int, now_ns: int) -> FdbRecord | None:
        fdb = self._fdb
        station = fdb.find(mac)
        if station is None:
            return self._learn_new(mac, port_no, now_ns)
        if station.port_no != port_no:
            self.counters.moved += 1
            self._events.put_station(StationMoved(now_ns, mac, port_no, station.port_no))
            fdb.move(station, port_no)
        fdb.touch(station, now_ns)
        return station

    def _learn_new(self, mac: bytes, port_no: int, now_ns: int) -> FdbRecord | None:
        station = self._fdb.add(mac, port_no, now_ns)
        if station is None:
            self.counters.learn_refused += 1
            if not self._fdb_full:
                self._fdb_full = True
                self._events.put_certain(FdbFull(now_ns, self.config.fdb_capacity))
            return None
        self._fdb_full = False
        self.counters.learned += 1
        self._events.put_station(MacLearned(now_ns, mac, port_no))
        return station

    def _report_unknown(self, station: FdbRecord, destination: bytes, now_ns: int) -> None:
        reported_ns = station.unknown_at_ns
        if reported_ns is None or now_ns - reported_ns > self.config.ageing_time_ns:
            station.unknown_at_ns = now_ns
            self._events.put_station(UnknownUnicast(now_ns, station.mac, destination, station.port_no))

    def _flood(self, port_no: int) -> Verdict:
        verdict = self._floods.get(port_no)
        if verdict is None:
            others = sorted(self._ports.keys() - {port_no, *self._monitors})
            verdict = self._floods[port_no] = Verdict((*others, *self._monitors))
        return verdict

    def _unicast(self, port_no: int) -> Verdict:
        verdict = self._unicasts.get(port_no)
        if verdict is None:
            verdict = self._unicasts[port_no] = Verdict((port_no, *self._monitors))
        return verdict

    def _forget_verdicts(self) -> None:
        self._floods.clear()
        self._unicasts.clear()
