"""What every transport yields: sessions with a descriptor, a peer and a life of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from umlab._boot import Boot
from umlab.errors import UmlabError
from umlab.switch.model import Link


@dataclass(frozen=True, slots=True)
class Peer:
    """The process behind a session.

    Attributes:
        pid: As SO_PEERCRED says, in our PID namespace; 0 where it is not visible.
        uid: Its user.
        gid: Its group.
        boot: Which boot of a guest it is, since a reboot keeps the pid; ``None`` where it is not a UML
            kernel or cannot be looked into.
    """

    pid: int
    uid: int
    gid: int
    boot: Boot | None


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One attachment that a transport has set up, before it has a port.

    Attributes:
        kind: The transport's name, such as ``daemon`` or ``bess``.
        link: The descriptors to serve.
        peer: The process behind it, where there is one.
        detail: What a person would want to see beside the kind, such as ``v3``; may be empty.
        close: Ends the session from our side (its control stream, where it has one).  Idempotent.
            Does not touch ``link.fd``.
        fds: Descriptors that keep it alive beside ``link.fd``; they belong to the transport.
        state: What :meth:`Listener.resume` needs beside descriptors, JSON-ready.
    """

    kind: str
    link: Link
    peer: Peer | None
    detail: str
    close: Callable[[], None]
    fds: tuple[int, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class KeptSession:
    """A session of an earlier process of ours, to be resumed in this one.

    Attributes:
        peer: As it was.
        detail: As it was.
        state: As it was.
        fds: Descriptors of this process: ``link.fd`` first, then ``fds``.
    """

    peer: Peer | None
    detail: str
    state: Mapping[str, Any]
    fds: tuple[int, ...]


def nothing_to_close() -> None:
    """End a session that is nothing beside its descriptor, which the engine closes."""


class SessionSink(Protocol):
    """Who takes the sessions of a listener; all calls come from the event loop's thread."""

    def session_opened(self, session: Session) -> int:
        """Give the session a port and return its number.  Frames may flow when this returns.

        Raises:
            SwitchError: It gets none; the listener closes what it made for it.
            StateError: The same, because the switch does not run.
        """

    def session_closed(self, session: Session) -> None:
        """The guest ended a session that was opened; not called after ``session.close()``."""

    def session_refused(self, kind: str, reason: UmlabError, peer: Peer | None) -> None:
        """An attach request came to nothing; the reason's text is one printable line."""


class Listener(Protocol):
    """A place where guests attach."""

    #: The transport's name.
    kind: str
    #: Where it listens, for people, such as a path.
    where: str
    #: What a guest's kernel is told to attach here; empty where it is not a guest that attaches.
    guest_argument: str

    async def start(self, sink: SessionSink, kept: Mapping[str, int] | None = None) -> None:
        """Begin to accept.

        Args:
            sink: Who takes the sessions.
            kept: What :meth:`descriptors` returned in an earlier process of ours, as descriptors of this
                one: nothing is opened anew.  Those that it returns now belong to the listener from then
                on, on an error none does.

        Raises:
            TransportError: The place cannot be had; names it and says why.
        """

    def descriptors(self) -> dict[str, int]:
        """Return, by name, what another process needs to accept here; they stay the listener's."""

    def resume(self, kept: KeptSession) -> Session:
        """Go on with a session of an earlier process of ours; the sink is not told.

        The descriptors belong to the session from then on, on an error they stay the caller's.

        Raises:
            TransportError: It is not served any more.
            OSError, LookupError, TypeError, ValueError: It is none of this listener's.
        """

    async def close(self) -> None:
        """Accept no more, end every session without reporting it, remove every file that was made."""
