"""Mirror sessions as the forwarding core looks them up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from umlab.switch.model import MirrorSession


class MirrorTable:
    """Which ports get a copy of a frame.

    Args:
        sessions: In their order.
    """

    __slots__ = ("_destinations", "_sessions")

    def __init__(self, sessions: Iterable[MirrorSession]) -> None:
        self._sessions = tuple(sessions)
        self._destinations = frozenset(each.destination for each in self._sessions)

    def is_destination(self, port_no: int) -> bool:
        """Tell whether a port gets copies, and so takes no part in switching."""
        return port_no in self._destinations

    def destinations(self, ingress: int, egress: Sequence[int], vid: int) -> list[int]:
        """Return whom a frame is copied to, each once, in the order of the sessions.

        Args:
            ingress: The port it came from.
            egress: The ports it goes to.
            vid: Its VLAN, 0 for none.
        """
        found: dict[int, None] = {}
        for each in self._sessions:
            if (
                (each.ingress and ingress in each.ports)
                or (each.egress and not each.ports.isdisjoint(egress))
                or vid in each.vids
            ):
                found[each.destination] = None
        return list(found)
