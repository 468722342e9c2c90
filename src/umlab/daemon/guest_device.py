"""The devices of a lab's guests: what is plugged in, while they run."""

from __future__ import annotations

import errno

from umlab.daemon.guest_member import Member
from umlab.daemon.guest_set import GuestSet
from umlab.daemon.view import DeviceView
from umlab.errors import MconsoleError

#: Devices that every guest has.
_DEVICES = ("con0", "con1", "ssl0")
#: Devices of which the kernel does not tell how they are set.
_NICS = ("eth", "vec")


class GuestDevices:
    """The devices of all guests.

    Args:
        guests: The guests.
    """

    def __init__(self, guests: GuestSet) -> None:
        self._guests = guests

    async def views(self, name: str) -> list[DeviceView]:
        """Return the devices that a guest is known to have.  Raises NoSuchGuest, MconsoleError."""
        member = self._guests.find(name)
        return [await _ask(member, device) for device in sorted({*_DEVICES, *member.plugged})]

    async def view(self, name: str, device: str) -> DeviceView:
        """Return a device.  Raises NoSuchGuest, MconsoleError."""
        return await _ask(self._guests.find(name), device)

    async def put(self, name: str, device: str, setting: str) -> bool:
        """Plug a device, and say whether it was not there already.  Raises NoSuchGuest, MconsoleError."""
        async with self._guests.lock(name):
            member = self._guests.find(name)
            if member.plugged.get(device) == setting:
                return False
            await member.service.mconsole.config_set(device, setting)
            member.plugged[device] = setting
            self._guests.write_down(member)
            return True

    async def remove(self, name: str, device: str) -> bool:
        """Unplug a device, and say whether it was there.  Raises NoSuchGuest, MconsoleError."""
        async with self._guests.lock(name):
            member = self._guests.find(name)
            was_there = True
            try:
                await member.service.mconsole.remove(device)
            except MconsoleError as error:
                if error.err != -errno.ENODEV:
                    raise
                was_there = False
            # The kernel has accepted a NIC and lost it again where nobody listened for it.
            if member.plugged.pop(device, None) is not None:
                self._guests.write_down(member)
                was_there = True
            return was_there


async def _ask(member: Member, device: str) -> DeviceView:
    if device in member.plugged and device.startswith(_NICS):
        return DeviceView(device, member.plugged[device])
    return DeviceView(device, await member.service.mconsole.config_get(device))
