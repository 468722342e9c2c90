"""The socket pairs of a guest's ``fd`` NICs, from before the guest is started until they are plugged in."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from umlab.guest.cmdline import FdNic, GuestSpec, nic_settings
from umlab.transports.contract import Peer
from umlab.transports.fd import FdListener, socket_pair


class SocketPairs:
    """A pair for each such NIC; a context manager that closes all ends but those that are plugged in.

    Once it is left nobody has the guest's ends but the guest, whose end the switch then sees.

    Args:
        spec: The guest.
        listener_of: Returns where a switch, by name, takes our ends.  Raises NoSuchSwitch.

    Raises:
        NoSuchSwitch: A NIC is on a switch that is not there.
        OSError: There is no descriptor left.
    """

    def __init__(self, spec: GuestSpec, listener_of: Callable[[str], FdListener]) -> None:
        self._umid = spec.umid
        nics = [
            (device, listener_of(nic.switch))
            for nic, (device, _) in zip(spec.nics, nic_settings(spec.nics), strict=True)
            if isinstance(nic, FdNic)
        ]
        self._ends = ExitStack()
        self._ours: list[tuple[str, FdListener, socket.socket]] = []
        self._theirs: list[socket.socket] = []
        with ExitStack() as on_error:
            on_error.push(self._ends)
            for device, listener in nics:
                ours, theirs = map(self._ends.enter_context, socket_pair())
                self._ours.append((device, listener, ours))
                self._theirs.append(theirs)
            on_error.pop_all()

    @property
    def guest_ends(self) -> list[int]:
        """The descriptors that the guest has to inherit, in the order of its NICs."""
        return [end.fileno() for end in self._theirs]

    def plug(self, pid: int) -> None:
        """Give each of our ends a port.

        Args:
            pid: The guest's main process.

        Raises:
            SwitchError, StateError: One gets none; those before it have theirs until the guest ends.
        """
        # A boot is not known yet, and a guest that reboots keeps its end.
        peer = Peer(pid, os.geteuid(), os.getegid(), None)
        for device, listener, end in self._ours:
            listener.plug(end, peer, f"{self._umid} {device}")

    def __enter__(self) -> SocketPairs:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
