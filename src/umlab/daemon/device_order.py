"""What a device of a guest is asked to be, in the words of the lab: a NIC names its switch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

from umlab.daemon.spec import attached_nic
from umlab.errors import LabError
from umlab.guest.cmdline import nic_settings
from umlab.guest.device import DeviceName, Disk, Kind, Setting, parse_setting, serialize_setting

#: The device that each transport of a lab's switch makes.
_NIC_KINDS: dict[Literal["daemon", "bess"], Kind] = {"daemon": "eth", "bess": "vec"}


@dataclass(frozen=True, slots=True)
class SwitchNic:
    """A NIC on a switch of the lab.

    Attributes:
        switch: The switch.
        transport: ``daemon`` for a device ``ethN``, ``bess`` for ``vecN``; by default what the device's
            name says, and ``daemon`` where it has none yet.
        mac: Such as ``02:00:00:00:00:01``; a random one unless given.
        mtu: Bytes without the Ethernet header, of ``bess`` only; 1500 unless given.
    """

    switch: str
    transport: Literal["daemon", "bess"] | None = None
    mac: str | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class DeviceOrder:
    """How a device is plugged: one of these.

    Attributes:
        setting: What stands behind the sign in the kernel's ``config`` command, such as
            ``daemon,,unix,/run/user/1000/lan.ctl``; a disk's letters may stand in front of it, as in
            ``r=/srv/a.img``.
        nic: A NIC on a switch of the lab.
        disk: A disk ``ubdN``.
        memory: How much memory the guest has, such as ``96M``, at most what it was started with.
        console: Where a console goes, such as ``pts``.
    """

    setting: str | None = None
    nic: SwitchNic | None = None
    disk: Disk | None = None
    memory: str | None = None
    console: str | None = None

    def __post_init__(self) -> None:
        """Refuse none, and more than one.

        Raises:
            ValueError: It is not exactly one.
        """
        if sum(getattr(self, field.name) is not None for field in fields(self)) != 1:
            raise ValueError(f"give one of {', '.join(field.name for field in fields(self))}")


def new_kind(order: DeviceOrder) -> Kind:
    """Return the kind of device that an order without a name asks for.

    Raises:
        LabError: It does not tell.
    """
    if order.nic is not None:
        return _NIC_KINDS[order.nic.transport or "daemon"]
    if order.disk is not None:
        return "ubd"
    if order.console is not None:
        return "con"
    raise LabError("only a NIC, a disk and a console get a name of their own; say which device it is")


def resolve_order(
    order: DeviceOrder, name: DeviceName, letters: str, listening_of: Callable[[str], tuple[str, ...]]
) -> Setting:
    """Return the setting that an order is for a device.

    Args:
        order: What is asked for.
        name: The device.
        letters: Of a disk, the letters that stood behind its name.
        listening_of: Returns where a switch, by name, listens.

    Raises:
        LabError: It does not fit the device, or the kernel would not take it.
        NoSuchSwitch: The lab has no such switch.
    """
    if order.nic is not None:
        text = _nic_text(order.nic, name, listening_of)
    elif order.disk is not None:
        _check_kind(name, order.disk, "ubd")
        text = serialize_setting(order.disk)
    elif order.memory is not None:
        _check_kind(name, order.memory, "mem")
        text = order.memory
    elif order.console is not None:
        _check_kind(name, order.console, "con", "ssl")
        text = order.console
    else:
        assert order.setting is not None
        text = order.setting
    return parse_setting(name, text, letters)


def _nic_text(nic: SwitchNic, name: DeviceName, listening_of: Callable[[str], tuple[str, ...]]) -> str:
    transport = nic.transport or next((key for key, kind in _NIC_KINDS.items() if kind == name.kind), None)
    if transport is None or _NIC_KINDS[transport] != name.kind:
        raise LabError(
            f"{name} is no NIC on {transport or 'a switch'}: eth devices are daemon's, vec ones bess's"
        )
    if nic.mtu is not None and transport == "daemon":
        raise LabError(f"{name}: a NIC on daemon has the MTU 1500; take bess for another one")
    attached = attached_nic(transport, nic.switch, listening_of(nic.switch), nic.mac, nic.mtu)
    if attached is None:
        raise LabError(f"{name}: switch {nic.switch} does not listen for {transport}")
    ((_, text),) = nic_settings((attached,))
    return text


def _check_kind(name: DeviceName, wanted: object, *kinds: Kind) -> None:
    if name.kind not in kinds:
        what = type(wanted).__name__.lower() if isinstance(wanted, Disk) else repr(wanted)
        raise LabError(f"{name} cannot be {what}: that is for {' and '.join(kinds)} devices")
