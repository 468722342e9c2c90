"""Which ports a rebooted guest has left behind.

A UML guest that reboots keeps its process, and with it the sockets of NICs that were down: their
control connections never end, and their ports would stay for ever.  The memory file's inode tells the
boots of one process apart.
"""

from __future__ import annotations

from umlab.transports.contract import Peer


class LeaseBook:
    """Who holds which port."""

    def __init__(self) -> None:
        self._holders: dict[int, Peer] = {}

    def grant(self, port_no: int, peer: Peer | None) -> None:
        """Note that a port belongs to a peer; one without a known boot holds it until it lets go."""
        if peer is not None and peer.boot is not None:
            self._holders[port_no] = peer

    def release(self, port_no: int) -> None:
        """Forget a port."""
        self._holders.pop(port_no, None)

    def outdated_by(self, peer: Peer | None) -> list[int]:
        """Return the ports of earlier boots of a process that has just attached again, in port order.

        A guest with two NICs attaches twice within one boot and keeps both.
        """
        if peer is None or peer.boot is None:
            return []
        return sorted(
            port_no
            for port_no, holder in self._holders.items()
            if holder.pid == peer.pid and holder.boot != peer.boot
        )
