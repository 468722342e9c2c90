"""LLDP of a running switch: gives frames, time and ports to the machine, and sends what that says."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable

from umlab import __version__
from umlab.daemon.refusal import RefusalBook
from umlab.daemon.switch import ServiceEvent, SessionClosed, SessionOpened, SessionResumed, SwitchService
from umlab.errors import RemoteProtocolError
from umlab.switch.control.lldp import LldpMachine, Neighbour, NeighbourEvent, Station
from umlab.switch.core import Punt

_log = logging.getLogger(__name__)


class LldpService:
    """The neighbours of a switch's ports, known from when the switch starts.

    It says nothing by itself: see :meth:`send`.

    Args:
        lab: The lab's name.
        service: The switch, which is not started yet.
        describe: Says what is plugged in at a port.
        publish: Is given every event.
    """

    def __init__(
        self,
        lab: str,
        service: SwitchService,
        describe: Callable[[int], str],
        publish: Callable[[NeighbourEvent], None],
    ) -> None:
        name = f"{lab}/{service.name}"
        station = Station(station_mac(name), service.name, name, f"umlab {__version__}")
        self._machine = LldpMachine(station, describe)
        self._service = service
        self._publish = publish
        self._clock = service.clock
        self._refusals = RefusalBook()
        self._timer: asyncio.TimerHandle | None = None
        service.subscribe(self._take_event)
        service.subscribe_punts(self._take_punts)

    def send(self, sending: bool) -> None:
        """Begin to tell the neighbours of the switch, or take it back and end."""
        self._machine.send(sending, self._clock.now_ns())
        self._settle()

    def stop(self) -> None:
        """Take back what was said, and end; the switch still runs."""
        self.send(False)
        self.rest()

    def rest(self) -> None:
        """End without a word: the next daemon goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def neighbours(self, port_no: int) -> tuple[Neighbour, ...]:
        """Return the neighbours of a port, the longest known first."""
        return self._machine.neighbours(port_no)

    def counters(self) -> dict[str, int]:
        """Return what was counted, by name."""
        return {"lldp_malformed": self._machine.malformed, "lldp_refused": self._machine.refused}

    def _take_event(self, event: ServiceEvent) -> None:
        if isinstance(event, SessionOpened | SessionResumed):
            session = self._service.session(event.port_no)
            # Who watches frames is no neighbour.
            if session is not None and not session.link.monitor:
                self._machine.add_port(event.port_no, event.at_ns)
                self._settle()
        elif isinstance(event, SessionClosed):
            self._machine.remove_port(event.port_no, event.at_ns)
            self._settle()

    def _take_punts(self, punts: list[Punt]) -> None:
        for punt in punts:
            try:
                self._machine.receive(punt.port_no, punt.frame, punt.at_ns)
            except RemoteProtocolError as error:
                if told := self._refusals.note(punt.at_ns, "lldp", error, None):
                    _log.warning(
                        "switch %s: malformed LLDP from port %d: %s", self._service.name, punt.port_no, told
                    )
        self._settle()

    def _handle_timer(self) -> None:
        self._timer = None
        self._machine.handle_timer(self._clock.now_ns())
        self._settle()

    def _settle(self) -> None:
        """Do what the machine wants done."""
        # Where a mirror session's copies go, nothing else does.
        copied_to = {session.destination for session in self._service.config.mirrors}
        for port_no, frame in self._machine.frames_to_send():
            if port_no not in copied_to:
                self._service.engine.send(port_no, frame)
        for event in self._machine.take_events():
            self._publish(event)
        self.rest()
        at_ns = self._machine.get_timer()
        if at_ns is not None:
            delay = max(at_ns - self._clock.now_ns(), 0) / 1e9
            self._timer = asyncio.get_running_loop().call_later(delay, self._handle_timer)


def station_mac(name: str) -> bytes:
    """Return the address of a switch: the same at each start, locally administered, of one station."""
    mac = bytearray(hashlib.sha256(name.encode()).digest()[:6])
    mac[0] = mac[0] & ~1 | 2
    return bytes(mac)
