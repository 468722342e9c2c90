"""A guest's interfaces are set down before its switch ends their connections.

A UML kernel reads the end of a ``bess`` or ``fd`` connection for ever while the interface is up: its guest
uses all the processor time that it gets, and with a kernel of 6.12 no program of it runs any more.  Once
the interface is down the connection is closed.

Source: Linux arch/um/drivers/vector_kern.c ``vector_poll``, ``vector_mmsg_rx``.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Mapping

from umlab.daemon.guest import GuestService
from umlab.daemon.switch import SwitchService
from umlab.errors import UmlabError
from umlab.guest.cmdline import FdNic, nic_settings

#: Seconds for a command that only sets interfaces down.
_TIMEOUT = 5.0
#: The transports whose guests read an end for ever.
KINDS = frozenset({"bess", "fd"})


async def set_down(service: GuestService, plugged: Mapping[str, str], switch: SwitchService) -> None:
    """Set a guest's interfaces down that have such a connection to a switch.

    Does nothing where the guest has no agent, or one that does not answer.

    Args:
        service: The guest.
        plugged: Its devices, and how they are set.
        switch: The switch.
    """
    devices = _devices(service, plugged, switch)
    if devices and service.is_ready:
        command = "; ".join(f"ip link set {shlex.quote(device)} down" for device in devices)
        with contextlib.suppress(UmlabError):
            await service.run(command, _TIMEOUT)


def _devices(service: GuestService, plugged: Mapping[str, str], switch: SwitchService) -> list[str]:
    paths = {os.path.abspath(each.where) for each in switch.listeners if each.kind == "bess"}
    devices = [device for device, setting in plugged.items() if _bess_path(setting) in paths]
    nics = service.guest.spec.nics
    for nic, (device, _) in zip(nics, nic_settings(nics), strict=True):
        if isinstance(nic, FdNic) and nic.switch == switch.name:
            devices.append(device)
    return devices


def _bess_path(setting: str) -> str | None:
    """Return where a vector NIC of this setting connects, ``None`` where it is another device."""
    options = dict(option.partition("=")[::2] for option in setting.split(","))
    return options.get("dst") if options.get("transport") == "bess" else None
