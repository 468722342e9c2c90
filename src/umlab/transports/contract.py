"""What every transport yields: sessions with a descriptor, a peer and a life of their own."""

from __future__ import annotations

import os
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
        groups: Its supplementary groups.
    """

    pid: int
    uid: int
    gid: int
    boot: Boot | None
    groups: tuple[int, ...] = ()


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
        wanted_port_no: The port that it asks for; it gets another where that one is taken.
    """

    kind: str
    link: Link
    peer: Peer | None
    detail: str
    close: Callable[[], None]
    fds: tuple[int, ...] = ()
    state: Mapping[str, Any] = field(default_factory=dict)
    wanted_port_no: int | None = None


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


#: Users and groups have smaller numbers; this one is no user.
MAX_ID = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Access:
    """Who may attach to a switch; the operating system enforces the first two, the switch the others.

    Attributes:
        mode: Permission bits of the socket files; a directory has an x wherever they have an r or a w,
            and is sticky where others may write.  ``None`` leaves them to the umask.
        gid: The group that the socket files are given, ``None`` for our own.
        uids: Users who may attach, in ascending order.
        gids: Groups whose members may attach, in ascending order.

    Where there are neither users nor groups everybody may attach who can open the socket.  We ourselves
    and root always may, and so may who has no credentials, such as a remote host that was named.
    """

    mode: int | None = 0o600
    gid: int | None = None
    uids: tuple[int, ...] = ()
    gids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= (self.mode or 0) <= 0o777:
            raise ValueError("mode must be between 0 and 0777")
        if not all(0 <= number < MAX_ID for number in (self.gid or 0, *self.uids, *self.gids)):
            raise ValueError(f"a user or group is a number below {MAX_ID}")

    def permits(self, peer: Peer | None) -> bool:
        """Return whether a peer is one of those who may attach."""
        if peer is None or not (self.uids or self.gids) or peer.uid in (0, os.geteuid(), *self.uids):
            return True
        return any(gid in self.gids for gid in (peer.gid, *peer.groups))


#: For the switch's own user alone.
PRIVATE = Access()


@dataclass(frozen=True, slots=True)
class Argument:
    """What a program is told in order to attach.

    Attributes:
        program: ``uml``, ``qemu`` or ``vde_plug``.
        text: The argument, for a shell.
        needs: For ``uml``, the transport that the kernel must have, as
            :func:`umlab.guest.kernel.config.transports_of` names it.
    """

    program: str
    text: str
    needs: str = ""


class Listener(Protocol):
    """A place where guests attach."""

    #: The transport's name.
    kind: str
    #: Where it listens, for people, such as a path.
    where: str

    @property
    def arguments(self) -> tuple[Argument, ...]:
        """How to attach here, the best way first; none where an interface of the host does."""

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


@dataclass(frozen=True, slots=True)
class Transport:
    """A kind of attachment: what the registry has of it.

    Attributes:
        kind: Its name, which begins a place's text: ``KIND:PLACE``.
        form: How a place is written, for people.
        make: Makes a listener of a place; it is not started.  Raises TransportError.
        resolve: Returns a place with its relative paths made absolute by the function that it is given,
            which raises TransportError for what is no usable path.
        default: The file name, in a lab's directory for sockets, of the place of a segment that is told the
            kind alone; ``{}`` is the segment.  Empty where there is no such place.
    """

    kind: str
    form: str
    make: Callable[[str, Access], Listener]
    resolve: Callable[[str, Callable[[str], str]], str] = lambda place, absolute: place
    default: str = ""
