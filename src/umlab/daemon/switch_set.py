"""The switches of a lab, by name, each written down at the keeper."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from umlab._name import check_name
from umlab.capture.recorder import FlightRecorder
from umlab.daemon.access import user_name
from umlab.daemon.event_log import EventLog
from umlab.daemon.journal import UNUSABLE, SwitchJournal, kept_switches
from umlab.daemon.lldp import LldpService
from umlab.daemon.record import counters_record, event_record
from umlab.daemon.spec import SwitchSpec
from umlab.daemon.switch import PortInfo, ServiceEvent, SwitchService
from umlab.daemon.switch_change import SwitchChange
from umlab.daemon.view import FdbEntryView, ListenerView, PortView, SwitchView
from umlab.errors import AlreadyExists, NoSuchPort, NoSuchSwitch, StateError, UmlabError
from umlab.keeper.link import KeeperLink
from umlab.switch.control.lldp import NeighbourEvent
from umlab.switch.events import FdbFull, MacAged, MacLearned, StationMoved
from umlab.transports.registry import parse_listen
from umlab.wire.ethernet import format_mac

_log = logging.getLogger(__name__)

#: Seconds between two looks at what the FDBs know; a large one is written down less often.
FDB_TIME = 1.0
#: Seconds after which an unchanged FDB is written down again: its entries have been seen since.
_FDB_REFRESH = 20.0
#: Entries that are written down in about a hundredth of ``FDB_TIME``.
_FDB_PIECE = 2048
#: Addresses that are shown of a port.
_MAX_MACS = 16
_FDB_EVENTS = (MacLearned, StationMoved, MacAged, FdbFull)


@dataclass(slots=True)
class _Switch:
    """A running switch; ``fdb_at`` is when to write its FDB down, on the loop's clock."""

    spec: SwitchSpec
    service: SwitchService
    journal: SwitchJournal
    lldp: LldpService = field(init=False)
    fdb_at: float = 0.0
    fdb_changed: bool = False


@dataclass(slots=True)
class SwitchSet:
    """All switches of one daemon.

    Attributes:
        keeper: Who holds their descriptors.
        events: Where what they report goes.
        guest_of: Tells which guest of the lab a process is.
        lab: The lab's name.
    """

    keeper: KeeperLink
    events: EventLog
    guest_of: Callable[[int], str | None]
    lab: str
    _switches: dict[str, _Switch] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def resume(self) -> None:
        """Go on with every switch that an earlier daemon has left; one that cannot be is ended."""
        for spec, kept in kept_switches(self.keeper):
            try:
                switch = self._make(spec)
                await switch.service.start(kept)
            except (UmlabError, OSError, *UNUSABLE) as error:
                _log.error("switch %s cannot be taken over and is ended: %r", spec.name, error)
                kept.close()
                SwitchJournal(self.keeper, spec.name).remove(port_no for port_no, _, _ in kept.sessions)
            else:
                self._switches[spec.name] = switch
                switch.lldp.send(spec.lldp)

    def names(self) -> list[str]:
        """Return the names, sorted."""
        return sorted(self._switches)

    def service(self, name: str) -> SwitchService:
        """Return a switch.

        Raises:
            NoSuchSwitch: There is none of this name.
        """
        return self._find(name).service

    def spec(self, name: str) -> SwitchSpec:
        """Return what a switch is told to be.  Raises NoSuchSwitch."""
        return self._find(name).spec

    def recorder(self, name: str) -> FlightRecorder:
        """Return the flight recorder of a switch.

        Raises:
            NoSuchSwitch: There is none of this name.
            StateError: It has no recorder.
        """
        recorder = self.service(name).recorder
        if recorder is None:
            raise StateError(f"switch {name} has no flight recorder")
        return recorder

    async def put(self, spec: SwitchSpec) -> bool:
        """Have a switch of a description, and say whether it had to be made.

        Raises:
            AlreadyExists: There is one of this name that is something else.
            TransportError: A place to listen cannot be had.
            LabError: The name is not usable, or the places are too many.
        """
        check_name("switch", spec.name)
        async with self._lock:
            if spec.name in self._switches:
                if self._switches[spec.name].spec != spec:
                    raise AlreadyExists("switch", spec.name)
                return False
            switch = self._make(spec)
            # Its ports are written down under its name, so its sockets have to be there first.
            await switch.service.start()
            try:
                switch.journal.switch(spec, switch.service.listeners)
            except BaseException:
                await self._end(switch)
                raise
            self._switches[spec.name] = switch
            switch.lldp.send(spec.lldp)
            return True

    def change(self, name: str, change: SwitchChange) -> bool:
        """Tell a switch to be something else, and say whether it was not that already.

        On an error it is what it was.

        Raises:
            NoSuchSwitch: There is none of this name.
            ValueError: No switch can be that.
            SwitchError: It cannot become that while it runs, or nothing is plugged in where it changes.
            LabError: It is more than can be written down.
        """
        switch = self._find(name)
        config = change.of(switch.spec.config)
        change.check_attached(switch.spec.config, switch.service.port_numbers())
        lldp = switch.spec.lldp if change.lldp is None else change.lldp
        spec = replace(switch.spec, config=config, lldp=lldp)
        if switch.spec == spec:
            return False
        switch.journal.switch(spec, switch.service.listeners)
        try:
            switch.service.configure(config)
        except BaseException:
            switch.journal.switch(switch.spec, switch.service.listeners)
            raise
        switch.spec = spec
        switch.lldp.send(lldp)
        return True

    async def remove(self, name: str) -> bool:
        """End a switch and say whether there was one."""
        async with self._lock:
            switch = self._switches.pop(name, None)
            if switch is None:
                return False
            await self._end(switch)
            return True

    async def stop(self) -> None:
        """End every switch."""
        for name in self.names():
            await self.remove(name)

    def leave(self) -> None:
        """Leave the switches to the next daemon, with what their FDBs know."""
        self.write_fdbs(all_of_them=True)
        for switch in self._switches.values():
            switch.lldp.rest()

    def remove_port(self, name: str, port_no: int) -> bool:
        """Detach what is plugged in, and say whether there was something.

        Raises:
            NoSuchSwitch: There is none of this name.
        """
        try:
            self.service(name).remove_port(port_no)
        except NoSuchPort:
            return False
        return True

    def flush_fdb(self, name: str, port_no: int | None) -> bool:
        """Forget learnt addresses, and say whether there were some.

        Raises:
            NoSuchSwitch: There is none of this name.
            NoSuchPort: Nothing is attached there.
        """
        switch = self._find(name)
        switch.fdb_changed = True
        return switch.service.engine.flush_fdb(port_no) > 0

    def write_fdbs(self, *, all_of_them: bool = False) -> None:
        """Write down what has changed in the FDBs since the last call, one that is large not every time."""
        now = asyncio.get_running_loop().time()
        for switch in self._switches.values():
            if (
                all_of_them
                or (now >= switch.fdb_at and switch.fdb_changed)
                or (now >= switch.fdb_at + _FDB_REFRESH)
            ):
                entries = switch.service.fdb()
                switch.journal.fdb(entries)
                switch.fdb_changed = False
                switch.fdb_at = now + FDB_TIME * (len(entries) // _FDB_PIECE)

    # What is shown.

    def views(self) -> list[SwitchView]:
        """Return every switch, by name."""
        return [self.view(name) for name in self.names()]

    def view(self, name: str) -> SwitchView:
        """Return a switch.  Raises NoSuchSwitch."""
        switch = self._find(name)
        service = switch.service
        snapshot = service.snapshot()
        return SwitchView(
            name=name,
            engine=service.engine.kind,
            config=service.config,
            listeners=tuple(
                ListenerView(each.kind, each.where, each.arguments) for each in service.listeners
            ),
            ports=len(snapshot.ports),
            fdb_entries=snapshot.fdb_entries,
            counters=counters_record(snapshot.counters)
            | {"refused_sessions": service.refused}
            | switch.lldp.counters(),
            recorder=switch.spec.recorder,
            lldp=switch.spec.lldp,
        )

    def ports(self, name: str) -> list[PortView]:
        """Return the ports of a switch, by number.  Raises NoSuchSwitch."""
        switch = self._find(name)
        return self._port_views(switch, switch.service.ports())

    def port(self, name: str, port_no: int) -> PortView:
        """Return a port.  Raises NoSuchSwitch, NoSuchPort."""
        switch = self._find(name)
        ports = [port for port in switch.service.ports() if port.port_no == port_no]
        views = self._port_views(switch, ports)
        if not views:
            raise NoSuchPort(port_no)
        return views[0]

    def _port_views(self, switch: _Switch, ports: list[PortInfo]) -> list[PortView]:
        service = switch.service
        snapshot = service.snapshot()
        macs: dict[int, list[str]] = {port.port_no: [] for port in ports}
        entries = service.fdb()
        for entry in reversed(entries):
            seen = macs.get(entry.port_no)
            if seen is not None and len(seen) < _MAX_MACS:
                seen.append(format_mac(entry.mac))
        known = Counter(entry.port_no for entry in entries)
        return [
            PortView(
                port_no=port.port_no,
                kind=port.kind,
                detail=port.detail,
                state="down" if port.port_no in snapshot.down else "up",
                pid=port.peer.pid if port.peer else None,
                uid=port.peer.uid if port.peer else None,
                user=user_name(port.peer.uid) if port.peer else None,
                guest=self.guest_of(port.peer.pid) if port.peer else None,
                umid=port.umid,
                macs=tuple(macs[port.port_no]),
                fdb_entries=known[port.port_no],
                queued=snapshot.queued[port.port_no],
                counters=counters_record(snapshot.ports[port.port_no]),
                neighbours=switch.lldp.neighbours(port.port_no),
            )
            for port in ports
            if port.port_no in snapshot.ports
        ]

    def fdb(self, name: str) -> list[FdbEntryView]:
        """Return the learnt addresses, oldest first.  Raises NoSuchSwitch."""
        service = self._find(name).service
        entries = service.fdb()
        now_ns = service.snapshot().at_ns
        return [
            FdbEntryView(
                format_mac(each.mac),
                each.port_no,
                round((now_ns - each.last_seen_ns) / 1e9, 3),
                each.vid,
            )
            for each in entries
        ]

    def _find(self, name: str) -> _Switch:
        try:
            return self._switches[name]
        except KeyError:
            raise NoSuchSwitch(name) from None

    async def _end(self, switch: _Switch) -> None:
        try:
            switch.lldp.stop()
        finally:
            # What is killed between the two leaves dead sockets rather than a switch that nobody can reach.
            switch.journal.remove(port.port_no for port in switch.service.ports())
            await switch.service.stop()

    def _make(self, spec: SwitchSpec) -> _Switch:
        journal = SwitchJournal(self.keeper, spec.name)
        listeners = [parse_listen(each, spec.access) for each in spec.listen]
        service = SwitchService(
            spec.name,
            spec.config,
            listeners,
            journal=journal,
            access=spec.access,
            recorder=spec.recorder,
        )
        switch = _Switch(spec, service, journal)
        service.subscribe(lambda event: self._take_event(switch, event))
        switch.lldp = LldpService(
            self.lab,
            service,
            lambda port_no: self.describe(service, port_no),
            lambda event: self._take_event(switch, event),
        )
        return switch

    def describe(self, service: SwitchService, port_no: int) -> str:
        """Return what is plugged in at a port, in a few words; any thread may call it."""
        session = service.session(port_no)
        if session is None:
            return ""
        guest = self.guest_of(session.peer.pid) if session.peer else None
        return f"{session.kind}, guest {guest}" if guest else f"{session.kind} {session.detail}".rstrip()

    def _take_event(self, switch: _Switch, event: ServiceEvent | NeighbourEvent) -> None:
        if isinstance(event, _FDB_EVENTS):
            switch.fdb_changed = True
        record = event_record(event)
        self.events.publish({"event": record["event"], "switch": switch.spec.name} | record)
