"""Which NIC of a guest is at which port of which switch, as far as that can be told without asking it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from umlab.daemon.view import PortView
    from umlab.guest.nic import CommandLineNic

__all__ = ["GuestNic", "PluggedPort", "match_nics"]


@dataclass(frozen=True, slots=True)
class GuestNic:
    """A NIC of a guest, or a port of a switch at whose other end the guest is; ``None``: not known.

    Attributes:
        name: The guest's device, such as ``eth0``.
        transport: Such as ``daemon`` or ``bess``; may be empty.
        setting: What its kernel was told of it.
        port: Where it is plugged in: ``SWITCH:PORT`` of a switch that stands alone, else
            ``LAB/SWITCH:PORT``.
        mac: Its address: what the kernel was told, or the only one that was learnt at its port.
    """

    name: str | None
    transport: str
    setting: str | None
    port: str | None
    mac: str | None


@dataclass(frozen=True, slots=True)
class PluggedPort:
    """A port of a running switch.

    Attributes:
        lab: Its lab.
        switch: Its switch.
        view: The port.
        sockets: Where its switch listens for guests, with the transports: ``(kind, path)``.
    """

    lab: str
    switch: str
    view: PortView
    sockets: frozenset[tuple[str, str]]

    @property
    def place(self) -> str:
        """As `GuestNic.port`."""
        return port_place(self.lab, self.switch, self.view.port_no)

    def is_of(self, lab: str | None, guest: str, pid: int) -> bool:
        """Say whether a guest is at the other end.

        Args:
            lab: Its lab, ``None`` outside labs.
            guest: Its name.
            pid: Its main process.
        """
        if self.view.guest is not None and self.lab == lab:
            return self.view.guest == guest
        return self.view.pid == pid


def port_place(lab: str, switch: str, port_no: int) -> str:
    """Return the name of a port as `GuestNic.port` has it."""
    return f"{switch if switch == lab else f'{lab}/{switch}'}:{port_no}"


def match_nics(
    nics: Sequence[CommandLineNic], ports: Sequence[PluggedPort], told: Mapping[str, str]
) -> tuple[GuestNic, ...]:
    """Return the NICs of a guest with their ports, in order, then the ports of which the NIC is not known.

    An address that was learnt at a port tells its NIC.  So does the switch (of a NIC on an
    inherited socket: the transport) where the guest has one NIC and one port: which of two NICs attached
    first nobody knows.

    Args:
        nics: Its NICs.
        ports: The ports whose peer it is.
        told: Of some NICs, by name, the port that the guest's lab tells.
    """
    found: dict[str, PluggedPort] = {}
    left = list(ports)

    def settle(same: Callable[[CommandLineNic, PluggedPort], bool]) -> None:
        missing = [nic for nic in nics if nic.name not in found]
        pairs = [(nic, port) for nic in missing for port in left if same(nic, port)]
        for nic, port in pairs:
            if sum(nic is each for each, _ in pairs) == sum(port is each for _, each in pairs) == 1:
                found[nic.name] = port
                left.remove(port)

    settle(lambda nic, port: told.get(nic.name) == port.place)
    settle(lambda nic, port: nic.mac in port.view.macs)
    settle(
        lambda nic, port: (
            nic.transport == port.view.kind
            and (nic.path is None or (nic.transport, nic.path) in port.sockets)
        )
    )
    known = [_of(nic, found.get(nic.name)) for nic in nics]
    return (*known, *(GuestNic(None, each.view.kind, None, each.place, _mac(each)) for each in left))


def _of(nic: CommandLineNic, port: PluggedPort | None) -> GuestNic:
    place = None if port is None else port.place
    return GuestNic(nic.name, nic.transport, nic.setting, place, nic.mac or _mac(port))


def _mac(port: PluggedPort | None) -> str | None:
    return port.view.macs[0] if port is not None and len(port.view.macs) == 1 else None
