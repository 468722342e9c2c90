"""A sink that keeps what listeners report, where a switch's service would act on it."""

from __future__ import annotations

import os

from umlab.errors import UmlabError
from umlab.transports.contract import Peer, Session


class RecordingSink:
    """A :class:`umlab.transports.contract.SessionSink`; owns the descriptors that it was given.

    Attributes:
        opened: Sessions, in order.
        closed: Those that their guests ended.
        refused: Kind, reason and peer of every request that came to nothing.
        refusal: Raised instead of taking a session, when set.
    """

    def __init__(self) -> None:
        self.opened: list[Session] = []
        self.closed: list[Session] = []
        self.refused: list[tuple[str, UmlabError, Peer | None]] = []
        self.refusal: Exception | None = None

    def session_opened(self, session: Session) -> int:
        """Take a session, or raise the refusal."""
        if self.refusal is not None:
            raise self.refusal
        self.opened.append(session)
        return len(self.opened)

    def session_closed(self, session: Session) -> None:
        """Keep it."""
        self.closed.append(session)

    def session_refused(self, kind: str, reason: UmlabError, peer: Peer | None) -> None:
        """Keep it."""
        self.refused.append((kind, reason, peer))

    @property
    def reasons(self) -> list[str]:
        """The texts of all refusals."""
        return [str(reason) for _, reason, _ in self.refused]

    def close_links(self) -> None:
        """Close what an engine would have closed."""
        for session in self.opened:
            os.close(session.link.fd)
