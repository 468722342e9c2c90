"""The VLANs of ``vde_switch``: its commands for them, on the VLAN-aware ports of a switch of ours."""

from __future__ import annotations

import errno

from umlab.compat._vde_argument import CommandError, read_number, two_numbers
from umlab.compat._vde_ports import MAX_VLAN, Port, VdeSwitch
from umlab.wire.vde_console import NO_VLAN, format_vlan, format_vlan_port

#: What there may be beside VLAN 0; one fewer than there are numbers, which is for ports of no VLAN.
_MAX_VLANS = MAX_VLAN - 1


class VlanCommands:
    """Executes the commands; each takes its argument, and raises CommandError where it fails.

    Args:
        switch: What they are about.
    """

    def __init__(self, switch: VdeSwitch) -> None:
        self._switch = switch

    def create(self, argument: str) -> None:
        """Have one more VLAN."""
        vlan = read_number(argument)
        if not 1 <= vlan <= MAX_VLAN:
            raise CommandError(errno.EINVAL)
        if vlan in self._switch.vlans:
            raise CommandError(errno.EEXIST)
        if len(self._switch.vlans) > _MAX_VLANS:
            raise CommandError(errno.ENOSPC)
        self._switch.vlans.add(vlan)
        self._switch.apply()

    def remove(self, argument: str) -> None:
        """Have one fewer, of which no port may be."""
        vlan = read_number(argument)
        if not 0 <= vlan < NO_VLAN:
            raise CommandError(errno.EINVAL)
        if vlan not in self._switch.vlans:
            raise CommandError(errno.ENXIO)
        # A port that comes later is of VLAN 0.
        if vlan == 0 or any(vlan in port.vlans for port in self._switch.table.values()):
            raise CommandError(errno.EADDRINUSE)
        self._switch.vlans.remove(vlan)
        self._switch.apply()

    def add_port(self, argument: str) -> None:
        """Let a port have frames of a VLAN with tags, unless it has them without."""
        vlan, port = self._vlan_and_port(argument)
        if port.untagged == vlan:
            return
        if vlan == 0:
            # A tag with VID 0 says that the frame is of no VLAN.
            raise CommandError(errno.EOPNOTSUPP)
        port.tagged.add(vlan)
        self._switch.apply()

    def remove_port(self, argument: str) -> None:
        """Let a port have no frames with tags of a VLAN any more."""
        vlan, port = self._vlan_and_port(argument)
        if port.untagged == vlan:
            raise CommandError(errno.EADDRINUSE)
        port.tagged.discard(vlan)
        self._switch.apply()

    def set_untagged(self, argument: str) -> None:
        """Give a port another VLAN for its frames without tags, or none."""
        port_no, vlan = two_numbers(argument)
        if not 0 <= port_no < self._switch.end or not 0 <= vlan <= NO_VLAN:
            raise CommandError(errno.EINVAL)
        port = self._switch.table.get(port_no)
        if port is None or vlan not in self._switch.vlans | {NO_VLAN}:
            raise CommandError(errno.ENXIO)
        port.untagged = vlan
        port.tagged.discard(vlan)
        self._switch.apply()

    def show(self, argument: str, *, all_of_them: bool) -> str:
        """Return every VLAN, or one, with its ports: those in use, or all."""
        wanted = read_number(argument) if argument else None
        if wanted is not None and not 0 <= wanted <= MAX_VLAN:
            raise CommandError(errno.EINVAL)
        if wanted is not None and wanted not in self._switch.vlans:
            raise CommandError(errno.ENXIO)
        plugged = {port.port_no for port in self._switch.ports()}
        text = ""
        for vlan in sorted(self._switch.vlans):
            if wanted in (None, vlan):
                text += format_vlan(vlan) + "".join(
                    format_vlan_port(port_no, tagged=vlan in port.tagged, active=port_no in plugged)
                    for port_no, port in sorted(self._switch.table.items())
                    if vlan in port.vlans and (all_of_them or port_no in plugged)
                )
        return text

    def _vlan_and_port(self, argument: str) -> tuple[int, Port]:
        vlan, port_no = two_numbers(argument)
        if not 0 <= port_no < self._switch.end or not 0 <= vlan <= MAX_VLAN:
            raise CommandError(errno.EINVAL)
        port = self._switch.table.get(port_no)
        if port is None or vlan not in self._switch.vlans:
            raise CommandError(errno.ENXIO)
        return vlan, port
