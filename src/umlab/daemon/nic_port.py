"""Where in a lab a guest's NIC is plugged in.

A switch knows the process behind a port and, once the guest has sent something, its address; which of its
NICs it is follows from these as far as they tell it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from umlab.daemon.switch_set import SwitchSet
from umlab.errors import LabError
from umlab.guest.cmdline import DaemonNic, FdNic, GuestSpec, nic_settings
from umlab.guest.device import parse_device, parse_setting
from umlab.guest.vector import VectorNic


def nic_port(
    switches: SwitchSet, spec: GuestSpec, pid: int, plugged: Mapping[str, str], device: str
) -> tuple[str, int] | None:
    """Return the switch and the port of a NIC, ``None`` where it has none or cannot be told from another.

    Args:
        switches: The lab's switches.
        spec: The guest.
        pid: Its main process.
        plugged: All its devices, and how they are set.
        device: The NIC.
    """
    places = {name: place for name in plugged if (place := _place(spec, plugged, name)) is not None}
    mine = places.pop(device, None)
    if mine is None:
        return None
    kind, where, mac = mine
    for switch in _switches_at(switches, kind, where):
        service = switches.service(switch)
        ports = [
            port.port_no
            for port in service.ports()
            if port.kind == kind and port.peer is not None and port.peer.pid == pid
        ]
        if len(ports) == 1 and all(place[:2] != (kind, where) for place in places.values()):
            return switch, ports[0]
        for entry in switches.fdb(switch) if mac is not None else ():
            if entry.mac == mac and entry.port_no in ports:
                return switch, entry.port_no
    return None


def _place(spec: GuestSpec, plugged: Mapping[str, str], device: str) -> tuple[str, str, str | None] | None:
    """Return a NIC's transport, where it connects (with ``fd``, the switch's name) and its address."""
    try:
        name, _ = parse_device(device)
        setting = parse_setting(name, plugged[device])
    except LabError:
        # From a guest's description, which may say more than we plug in ourselves.
        return None
    mac = getattr(setting, "mac", None)
    mac = mac.lower() if mac is not None else None
    match setting:
        case DaemonNic():
            return "daemon", os.path.abspath(setting.control_path), mac
        case VectorNic(transport="bess"):
            return "bess", os.path.abspath(setting.get("dst") or ""), mac
        case VectorNic(transport="fd"):
            of_device = {name: nic for nic, (name, _) in zip(spec.nics, nic_settings(spec.nics), strict=True)}
            nic = of_device.get(device)
            return ("fd", nic.switch, mac) if isinstance(nic, FdNic) else None
    return None


def _switches_at(switches: SwitchSet, kind: str, where: str) -> Iterator[str]:
    for switch in switches.names():
        if kind == "fd":
            if switch == where:
                yield switch
            continue
        for listener in switches.service(switch).listeners:
            if listener.kind == kind and os.path.abspath(listener.where.partition(",")[0]) == where:
                yield switch
