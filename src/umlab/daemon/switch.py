"""One switch as a service: an engine, the places where guests attach, and who holds which port."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from umlab._clock import Clock, MonotonicClock
from umlab._descriptor_limit import raise_descriptor_limit
from umlab.capture.recorder import FlightRecorder
from umlab.daemon.access import user_name
from umlab.daemon.lease import LeaseBook
from umlab.daemon.refusal import RefusalBook
from umlab.engine.contract import Engine, SwitchSnapshot
from umlab.engine.select import create_engine
from umlab.errors import NoSuchPort, StateError, SwitchError, UmlabError
from umlab.guest.umid import umid_of
from umlab.switch.core import Punt
from umlab.switch.events import Event, LinkClosed, PortDetached
from umlab.switch.fdb import FdbEntry
from umlab.switch.model import SwitchConfig
from umlab.transports.contract import PRIVATE, Access, KeptSession, Listener, Peer, Session
from umlab.transports.fd import FdListener

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SessionOpened:
    """A guest has a port from now on."""

    at_ns: int
    port_no: int
    kind: str
    detail: str
    peer: Peer | None


@dataclass(frozen=True, slots=True)
class SessionResumed:
    """A guest goes on with the port that it had on an earlier daemon."""

    at_ns: int
    port_no: int
    kind: str
    detail: str
    peer: Peer | None


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """A guest's port is gone.

    Attributes:
        cause: ``guest`` ended it, ``link`` came to its end, a reboot ``retired`` it, or it was
            ``removed`` from our side.
    """

    at_ns: int
    port_no: int
    kind: str
    cause: str


@dataclass(frozen=True, slots=True)
class SessionRefused:
    """A request for a port came to nothing.

    Attributes:
        error: Why; its text is one printable line.
    """

    at_ns: int
    kind: str
    error: UmlabError
    peer: Peer | None


ServiceEvent = Event | SessionOpened | SessionResumed | SessionClosed | SessionRefused


@dataclass(frozen=True, slots=True)
class PortInfo:
    """A port and what is plugged in; ``umid`` is that of the guest whose process the peer is."""

    port_no: int
    kind: str
    detail: str
    peer: Peer | None
    umid: str | None = None


@dataclass(slots=True)
class KeptSwitch:
    """What an earlier daemon has left of a switch.

    Attributes:
        listeners: Descriptors of each listener, in order.
        sessions: Port number, the listener's place in that order, and the session.
        fdb: What it knew, oldest first.
        unused: Those of the descriptors that nobody has taken up yet.
    """

    listeners: Sequence[Mapping[str, int]]
    sessions: Sequence[tuple[int, int, KeptSession]]
    fdb: Sequence[FdbEntry]
    unused: set[int] = field(init=False)

    def __post_init__(self) -> None:
        """See what there is."""
        self.unused = {fd for sockets in self.listeners for fd in sockets.values()}
        self.unused.update(fd for _, _, session in self.sessions for fd in session.fds)

    def close(self) -> None:
        """Close what nobody has taken up."""
        while self.unused:
            os.close(self.unused.pop())


class Journal(Protocol):
    """Writes down what another daemon needs to go on with a switch."""

    def attached(self, port_no: int, listener: int, session: Session) -> None:
        """Keep a port's descriptors; called before the guest hears of its port."""

    def detached(self, port_no: int) -> None:
        """Keep them no more."""


class _NoJournal:
    """For a switch that ends with its process."""

    def attached(self, port_no: int, listener: int, session: Session) -> None:
        """Keep nothing."""

    def detached(self, port_no: int) -> None:
        """Keep nothing."""


class _ListenerSink:
    """Tells a service which of its listeners a session came from; see ``SessionSink``."""

    def __init__(self, service: SwitchService, listener: int) -> None:
        self._service = service
        self._listener = listener
        self.session_closed = service.session_closed
        self.session_refused = service.session_refused

    def session_opened(self, session: Session) -> int:
        return self._service.session_opened(session, self._listener)


class SwitchService:
    """A switch that guests attach to, from :meth:`start` to :meth:`stop`.

    All calls belong to one event loop's thread.

    Args:
        name: The switch's name.
        config: What it is told to be.
        listeners: Where guests attach; all are one broadcast domain.
        engine: What moves the frames; the best one unless given.
        clock: Where the time of its own events comes from; give the engine the same.
        journal: Where its ports are written down.
        access: Who may attach; everybody who can open a listener's socket unless given.
        recorder: Bytes of memory of its flight recorder, 0 for none.

    Attributes:
        name: The switch's name.
        engine: What moves the frames.
        clock: The engine's.
        listeners: Where guests attach.
        fd_listener: Where the guests are plugged in that this process starts.
        refused: How many requests came to nothing.
        recorder: Its newest frames, from the first one on; ``None`` where there is none.
        before_stop: Called in turn before it stops, while its counters can still be read.
    """

    def __init__(
        self,
        name: str,
        config: SwitchConfig,
        listeners: Iterable[Listener],
        *,
        engine: Engine | None = None,
        clock: Clock | None = None,
        journal: Journal | None = None,
        access: Access = PRIVATE,
        recorder: int = 0,
    ) -> None:
        self.name = name
        self.listeners = tuple(listeners)
        self.fd_listener = FdListener()
        #: Who makes sessions, in the order of their numbers.
        self._sources: tuple[Listener, ...] = (*self.listeners, self.fd_listener)
        self.clock = clock or MonotonicClock()
        self.engine = engine or create_engine(config, self.clock)
        self._journal = journal or _NoJournal()
        self._sessions: dict[int, Session] = {}
        self._leases = LeaseBook()
        self._subscribers: list[Callable[[ServiceEvent], None]] = []
        self._punt_subscribers: list[Callable[[list[Punt]], None]] = []
        self._running = False
        self._event_fd = -1
        self._access = access
        self._recorder_size = recorder
        self.recorder: FlightRecorder | None = None
        self.before_stop: list[Callable[[], None]] = []
        self.refused = 0
        self._refusals = RefusalBook()
        #: Of the ports that somebody has asked about.
        self._umids: dict[int, str | None] = {}

    def subscribe(self, callback: Callable[[ServiceEvent], None]) -> None:
        """Have every event of the engine and of the service given to ``callback``, in the loop's thread."""
        self._subscribers.append(callback)

    def subscribe_punts(self, callback: Callable[[list[Punt]], None]) -> None:
        """Have the frames for the control protocols given to ``callback``, as they come."""
        self._punt_subscribers.append(callback)

    async def start(self, kept: KeptSwitch | None = None) -> None:
        """Start the engine, then the listeners in turn; on an error nothing is left behind.

        Args:
            kept: What an earlier daemon has left of it: all is taken up before the first frame moves.  On an
                error the caller has to close it.

        Raises:
            TransportError: A listener cannot be had.
            SwitchError: There is no engine to be had.
            StateError: It was started before.
        """
        raise_descriptor_limit()
        try:
            self.engine.start(held=True)
        except OSError as error:
            raise SwitchError(f"switch {self.name} cannot be started: {error.strerror}") from None
        self._running = True
        self._event_fd = self.engine.event_fd()
        asyncio.get_running_loop().add_reader(self._event_fd, self._take_events)
        try:
            for number, listener in enumerate(self.listeners):
                sockets = None if kept is None else kept.listeners[number]
                await listener.start(_ListenerSink(self, number), sockets)
                if kept is not None:
                    kept.unused.difference_update(listener.descriptors().values())
            await self.fd_listener.start(_ListenerSink(self, len(self.listeners)))
            if kept is not None:
                for port_no, number, session in kept.sessions:
                    self._resume(port_no, number, session, kept.unused)
                kept.close()
                self.engine.restore_fdb(kept.fdb)
            self.recorder = self._make_recorder()
            self.engine.release()
        except BaseException:
            for port_no in self._sessions:
                self._journal.detached(port_no)
            await self.stop()
            raise

    async def stop(self) -> None:
        """End every session, remove every socket, stop the engine; a second call does nothing.

        Raises:
            RuntimeError: The engine's thread had died of a bug; everything is closed all the same.
        """
        if not self._running:
            return
        self._running = False
        asyncio.get_running_loop().remove_reader(self._event_fd)
        for end in [*self.before_stop]:
            end()
        if self.recorder is not None:
            self.recorder.close()
            self.recorder = None
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()
        try:
            # The engine first: a port may still receive on a socket that its listener is about to close.
            self.engine.stop()
        finally:
            for listener in self.listeners:
                await listener.close()
        for event in self.engine.take_events():
            self._publish(event)

    def _make_recorder(self) -> FlightRecorder | None:
        if not self._recorder_size:
            return None
        try:
            return FlightRecorder(self.engine, self._recorder_size, self.clock)
        except (MemoryError, SwitchError) as error:
            _log.warning("switch %s has no flight recorder: %s", self.name, error or "no memory for it")
            return None

    def ports(self) -> list[PortInfo]:
        """Return every port and what is plugged in, in port order."""
        return [
            PortInfo(port_no, session.kind, session.detail, session.peer, self._umid(port_no, session.peer))
            for port_no, session in sorted(self._sessions.items())
        ]

    def port_numbers(self) -> list[int]:
        """Return the numbers of all ports, in order; takes no look at what is plugged in."""
        return sorted(self._sessions)

    def session(self, port_no: int) -> Session | None:
        """Return what is plugged in, ``None`` where nothing is."""
        return self._sessions.get(port_no)

    def fdb(self) -> list[FdbEntry]:
        """Return the learnt addresses, oldest first."""
        return self.engine.fdb()

    def snapshot(self) -> SwitchSnapshot:
        """Return all counters."""
        return self.engine.snapshot()

    @property
    def config(self) -> SwitchConfig:
        """What the switch is told to be."""
        return self.engine.config

    def configure(self, config: SwitchConfig) -> None:
        """Tell it to be something else; no port goes down.

        Raises:
            SwitchError: ``first_port_no`` differs, which only a new switch can have.
        """
        try:
            self.engine.configure(config)
        except ValueError as error:
            raise SwitchError(str(error)) from None

    def remove_port(self, port_no: int) -> None:
        """Detach what is plugged in; a guest may attach again.

        Raises:
            NoSuchPort: Nothing is attached there.
        """
        if port_no not in self._sessions:
            raise NoSuchPort(port_no)
        self._detach(port_no, "removed")

    def session_opened(self, session: Session, listener: int = 0) -> int:
        """Attach a session of a listener; see :class:`umlab.transports.contract.SessionSink`."""
        if not self._running:
            raise StateError(f"switch {self.name} does not run")
        if session.peer is not None and not self._access.permits(session.peer):
            user = user_name(session.peer.uid)
            raise SwitchError(
                f"user {user} may not attach to switch {self.name}; start it with --allow-user {user}"
            )
        for port_no in self._leases.outdated_by(session.peer):
            self._detach(port_no, "retired")
        port_no = self.engine.attach(session.link, self.choose_port(session))
        self._sessions[port_no] = session
        self._leases.grant(port_no, session.peer)
        self._journal.attached(port_no, listener, session)
        self._publish(SessionOpened(self.clock.now_ns(), port_no, session.kind, session.detail, session.peer))
        return port_no

    def choose_port(self, session: Session) -> int | None:
        """Return the number of the port that a session gets, ``None`` for the lowest that is free.

        Raises:
            SwitchError: It gets none.
        """
        return None if session.wanted_port_no in self._sessions else session.wanted_port_no

    def session_closed(self, session: Session) -> None:
        """Detach a session that its guest ended."""
        for port_no, held in self._sessions.items():
            if held is session:
                self._detach(port_no, "guest")
                return

    def session_refused(self, kind: str, reason: UmlabError, peer: Peer | None) -> None:
        """Report a request that came to nothing, unless the switch has been stopped."""
        if not self._running:
            return
        now_ns = self.clock.now_ns()
        self.refused += 1
        if told := self._refusals.note(now_ns, kind, reason, peer):
            _log.warning(
                "switch %s: %s request of pid %s refused: %s", self.name, kind, peer and peer.pid, told
            )
        self._publish(SessionRefused(now_ns, kind, reason, peer))

    def _resume(self, port_no: int, listener: int, kept: KeptSession, unused: set[int]) -> None:
        """Go on with a session; what it takes up is not ``unused`` any more."""
        try:
            session = self._sources[listener].resume(kept)
            unused.difference_update(session.fds)
            try:
                self.engine.attach(session.link, port_no)
            except SwitchError:
                session.close()
                raise
        # What another version wrote down may be anything.
        except (UmlabError, OSError, LookupError, TypeError, ValueError) as error:
            _log.warning("switch %s: port %d cannot be resumed: %s", self.name, port_no, error)
            self._journal.detached(port_no)
            return
        unused.discard(session.link.fd)
        self._sessions[port_no] = session
        self._leases.grant(port_no, session.peer)
        self._publish(
            SessionResumed(self.clock.now_ns(), port_no, session.kind, session.detail, session.peer)
        )

    def _detach(self, port_no: int, cause: str) -> None:
        session = self._sessions.pop(port_no)
        self._journal.detached(port_no)
        self._leases.release(port_no)
        self._umids.pop(port_no, None)
        session.close()
        self.engine.detach(port_no)
        self._publish(SessionClosed(self.clock.now_ns(), port_no, session.kind, cause))

    def _umid(self, port_no: int, peer: Peer | None) -> str | None:
        if port_no not in self._umids:
            umid = None
            if peer is not None and peer.pid:
                # Only a kernel has a run directory, and all of these are looked at.
                umid = umid_of(peer.pid, peer.uid if peer.boot is not None else None)
            self._umids[port_no] = umid
        return self._umids[port_no]

    def _take_events(self) -> None:
        try:
            events = self.engine.take_events()
            # Taken whether somebody wants them or not: the descriptor is readable while there are some.
            punts = self.engine.take_punts()
        except RuntimeError:
            # Its thread died of a bug, and the descriptor stays readable for ever.
            asyncio.get_running_loop().remove_reader(self._event_fd)
            raise
        # A port that was detached since its link ended may be another session's by now.
        detached = Counter(event.port_no for event in events if isinstance(event, PortDetached))
        for event in events:
            self._publish(event)
            if isinstance(event, PortDetached):
                detached[event.port_no] -= 1
            elif isinstance(event, LinkClosed) and not detached[event.port_no]:
                self._detach(event.port_no, "link")
        if punts:
            for callback in self._punt_subscribers:
                callback(punts)

    def _publish(self, event: ServiceEvent) -> None:
        for callback in self._subscribers:
            callback(event)
