"""The devices of a lab's guests: plugged, looked whether they are there, and unplugged, while they run.

A kernel's ``OK`` says little: Linux 6.1 says it of a NIC that could not connect and of a disk that it could
not open.  So every device is looked for afterwards, and one that does not work is taken out again.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shlex

from umlab._boot import boot_of
from umlab.daemon.balloon import Balloon
from umlab.daemon.device_order import DeviceOrder, new_kind, resolve_order
from umlab.daemon.guest_member import LOG_CONSOLE, TERMINAL_CONSOLE, Member, plugged_at_boot
from umlab.daemon.guest_set import GuestSet
from umlab.daemon.nic_port import nic_port
from umlab.daemon.switch_set import SwitchSet
from umlab.daemon.view import DeviceView
from umlab.errors import (
    LabError,
    MconsoleError,
    MconsoleTimeout,
    MconsoleUnreachable,
    NoSuchDevice,
    RemoteProtocolError,
)
from umlab.guest.cmdline import AGENT_LINES
from umlab.guest.console import escape
from umlab.guest.containment import is_contained, writable_places
from umlab.guest.device import (
    Console,
    DeviceName,
    Disk,
    Memory,
    Setting,
    parse_device,
    parse_setting,
    request,
    serialize_setting,
)
from umlab.guest.plug import check_plug
from umlab.mconsole import command as commands

#: What a lab itself has of each guest: its log, its terminal and its agent's lines,
_OURS = (LOG_CONSOLE, TERMINAL_CONSOLE, *AGENT_LINES)
#: and what of it is shown.
_SHOWN = _OURS[:3]
_MEM = "mem"
_KINDS = {"eth": "nic", "vec": "nic", "ubd": "disk", "con": "console", "ssl": "serial", "mem": "memory"}
#: The first console that is nobody's.
_FIRST_CONSOLE = 2
#: Seconds for a command that only sets an interface down.
_DOWN_TIMEOUT = 5.0
#: Seconds in which what a kernel logged before its answer has come.
_LOG_TIME = 0.05
#: Seconds for the first of what a kernel logs when it refuses.
_REASON_TIME = 0.5
#: Bytes of what a kernel logged meanwhile that an error shows.
_MAX_SAID = 400
#: After these nobody knows whether the guest has done what it was asked.
_UNSURE = (MconsoleTimeout, RemoteProtocolError)


class GuestDevices:
    """The devices of all guests.

    Every method raises NoSuchGuest, LabError where a device's name or setting is none, and MconsoleError
    where the kernel refuses, or does not answer.

    Args:
        guests: The guests.
        switches: The lab's switches.
    """

    def __init__(self, guests: GuestSet, switches: SwitchSet) -> None:
        self._guests = guests
        self._switches = switches

    async def views(self, name: str) -> list[DeviceView]:
        """Return the devices that a guest is known to have."""
        member = self._find(name)
        found = []
        for device in sorted({*_SHOWN, _MEM, *member.plugged}):
            with contextlib.suppress(NoSuchDevice):
                found.append(await self._view(member, parse_device(device)[0]))
        return found

    async def view(self, name: str, device: str) -> DeviceView:
        """Return a device.  Raises NoSuchDevice."""
        return await self._view(self._find(name), parse_device(device)[0])

    async def put(self, name: str, device: str, order: DeviceOrder) -> bool:
        """Plug a device, and say whether it was not there already."""
        async with self._guests.lock(name):
            member = self._find(name)
            parsed, letters = parse_device(device)
            setting = resolve_order(order, parsed, letters, self._listening)
            if isinstance(setting, Memory):
                return await self._set_memory(member, setting)
            if isinstance(setting, Console) and setting.input == "none":
                return await self._unplug(member, parsed, down=False)
            return await self._plug(member, parsed, setting)

    async def add(self, name: str, order: DeviceOrder) -> DeviceView:
        """Plug a device under the first name of its kind that is free, and return it."""
        async with self._guests.lock(name):
            member = self._find(name)
            device = await self._free_name(member, order)
            await self._plug(member, device, resolve_order(order, device, "", self._listening))
            return await self._view(member, device)

    async def remove(self, name: str, device: str, *, down: bool = False) -> bool:
        """Unplug a device, and say whether it was there.

        Args:
            name: The guest.
            device: The device.
            down: Let the guest's agent set a NIC down before, which the kernel wants.
        """
        async with self._guests.lock(name):
            member = self._find(name)
            parsed, _ = parse_device(device)
            if parsed.kind == _MEM:
                return await self._set_memory(member, Memory(member.guest.spec.memory))
            return await self._unplug(member, parsed, down)

    async def reset(self, name: str, device: str, *, down: bool = False) -> None:
        """Unplug a NIC and plug it again as it was.

        That is the way out where its connection is lost or was refused: a ``vec`` device whose first ``ip
        link set up`` failed refuses every other one, and an ``eth`` device never connects again.  The guest
        has to give it its addresses anew.  Raises NoSuchDevice.

        Args:
            name: The guest.
            device: The NIC.
            down: As for :meth:`remove`.
        """
        async with self._guests.lock(name):
            member = self._find(name)
            parsed, _ = parse_device(device)
            text = member.plugged.get(str(parsed))
            if not parsed.is_nic:
                raise LabError(f"guest {name}: {parsed} is no NIC; only these are reset")
            if text is None:
                raise NoSuchDevice(name, str(parsed))
            setting = parse_setting(parsed, text)
            self._check(member, parsed, setting)
            await self._unplug(member, parsed, down)
            await self._plug(member, parsed, setting)

    # Below.

    def _listening(self, switch: str) -> tuple[str, ...]:
        return self._switches.spec(switch).listen

    def _find(self, name: str) -> Member:
        """Return a guest; one that has rebooted has what it had when it was started, and nothing else."""
        member = self._guests.find(name)
        boot = boot_of(member.guest.pid) if member.guest.status is None else None
        if boot is not None and boot != member.boot:
            if member.boot is not None:
                member.plugged = plugged_at_boot(member.guest.spec)
            member.boot = boot
            self._guests.write_down(member)
        return member

    def _note(self, member: Member, device: str, text: str | None) -> None:
        """Have a device written down as it is, or as not there."""
        if member.plugged.get(device) != text:
            if text is None:
                del member.plugged[device]
            else:
                member.plugged[device] = text
            self._guests.write_down(member)

    async def _view(self, member: Member, device: DeviceName) -> DeviceView:
        key = str(device)
        setting = member.plugged.get(key)
        if device.kind == _MEM:
            setting = serialize_setting(Memory(self._balloon(member).size))
        elif device.is_nic:
            if not await self._has_nic(member, device):
                setting = None
                self._note(member, key, None)
            elif setting is None:
                # It was plugged by somebody else, and the kernel does not tell how.
                setting = ""
        elif _is_unmade(member, key):
            setting = None
        else:
            told = await member.kernel.run(commands.config_get(key))
            if device.kind == "ubd" and not told:
                setting = None
                self._note(member, key, None)
            elif setting is None or not _agrees(device, setting, told):
                setting = told
        if setting is None:
            raise NoSuchDevice(member.name, key)
        guest = member.guest
        port = nic_port(self._switches, guest.spec, guest.pid, member.plugged, key) if device.is_nic else None
        switch, port_no = port or (None, None)
        return DeviceView(key, setting, _KINDS[device.kind], switch, port_no)

    async def _has_nic(self, member: Member, device: DeviceName) -> bool:
        """Ask for a NIC by configuring it as no kernel takes it: the first answer is that it is there."""
        nonsense = f"config {device}{':==' if device.kind == 'vec' else '='}"
        try:
            await member.kernel.run(commands.raw(nonsense))
        except (MconsoleTimeout, MconsoleUnreachable):
            raise
        except MconsoleError as error:
            return error.output == "Device already configured"
        return False

    async def _is_there(self, member: Member, device: DeviceName) -> bool:
        if device.is_nic:
            return await self._has_nic(member, device)
        return await member.kernel.run(commands.config_get(str(device))) not in ("", "none")

    async def _free_name(self, member: Member, order: DeviceOrder) -> DeviceName:
        kind = new_kind(order)
        for number in range(_FIRST_CONSOLE if kind == "con" else 0, 16):
            device = DeviceName(kind, number)
            if kind == "con":
                free = await member.kernel.run(commands.config_get(str(device))) in ("null", "none")
            else:
                free = not await self._is_there(member, device)
            if free:
                return device
        raise LabError(f"guest {member.name} has 16 devices of the kind {kind}, and no name is free")

    def _check(self, member: Member, device: DeviceName, setting: Setting) -> None:
        if str(device) in _OURS:
            raise LabError(
                f"guest {member.name}: {device} is the lab's own: it logs, attaches and commands there"
            )
        if isinstance(setting, Disk):
            _check_alone(member, str(device), setting)
        guest = member.guest
        writable = writable_places(guest.spec, guest.run) if is_contained(guest.spec) else None
        try:
            check_plug(setting, writable)
        except LabError as error:
            raise LabError(f"guest {member.name}: {device}: {error}") from None

    async def _plug(self, member: Member, device: DeviceName, setting: Setting) -> bool:
        key, text = str(device), serialize_setting(setting)
        before = member.plugged.get(key)
        if before == text and await self._is_there(member, device):
            return False
        self._check(member, device, setting)
        # Written down first: a kernel that does not answer may have it, and who looks will see.
        self._note(member, key, text)
        printed = member.guest.console.total
        try:
            await member.kernel.run(commands.raw(request(device, setting)))
            await self._verify(member, device, setting, printed)
        except _UNSURE:
            raise
        except MconsoleError as error:
            self._note(member, key, before)
            if not isinstance(error, MconsoleUnreachable):
                said = await _reason(member, printed)
                error = _explained(error, device, plug=True, said=said)
            raise error from None
        except LabError:
            self._note(member, key, before)
            raise
        return True

    async def _verify(self, member: Member, device: DeviceName, setting: Setting, printed: int) -> None:
        """Raise MconsoleError unless a device that the kernel took is there and works."""
        if isinstance(setting, Disk):
            # Linux 6.1 tells nothing but its log, which comes by another way than its answer.
            await asyncio.sleep(_LOG_TIME)
            if f"{device}: Can't open" in _said(member, printed):
                with contextlib.suppress(MconsoleError):
                    await member.kernel.run(commands.remove(str(device)))
                raise MconsoleError(
                    member.name, request(device, setting), "the kernel took it and could not open it"
                )
        elif not await self._is_there(member, device):
            reason = (
                "the kernel took it and could not connect it" if device.is_nic else "the kernel has it not"
            )
            raise MconsoleError(member.name, request(device, setting), reason)

    async def _unplug(self, member: Member, device: DeviceName, down: bool) -> bool:
        key = str(device)
        if key in _OURS:
            raise LabError(f"guest {member.name}: {device} is the lab's own and stays")
        if down and device.is_nic:
            await self._set_down(member, key)
        if _is_unmade(member, key):
            return False
        was_there = True
        try:
            await member.kernel.run(commands.remove(key))
        except (*_UNSURE, MconsoleUnreachable):
            raise
        except MconsoleError as error:
            if error.err != -errno.ENODEV and error.output != "configured as 'none'":
                raise _explained(error, device, plug=False) from None
            was_there = False
        self._note(member, key, None)
        return was_there

    async def _set_down(self, member: Member, device: str) -> None:
        if not member.service.is_ready:
            raise LabError(
                f"guest {member.name} has no agent that could set {device} down; do so in the guest"
            )
        # Its agent would do so once it goes on, whatever became of the request; and a device that is plugged
        # in while a program waits for its turn leaves the guest hung for ever, with a kernel of Linux 6.1.
        if (await member.kernel.look(commands.QUICK_TIMEOUT)).state == "stopped":
            raise LabError(
                f"guest {member.name} is stopped, and its agent with it; let it go on first: "
                f"umlab console {member.name} -- go"
            )
        await member.service.run(f"ip link set {shlex.quote(device)} down", _DOWN_TIMEOUT)

    def _balloon(self, member: Member) -> Balloon:
        text = member.plugged.get(_MEM)
        setting = parse_setting(DeviceName("mem"), text) if text is not None else None
        size = setting.size if isinstance(setting, Memory) else member.guest.spec.memory
        return Balloon(member.name, member.kernel, member.guest.spec.memory, size)

    async def _set_memory(self, member: Member, wanted: Memory) -> bool:
        if wanted.sign:
            raise LabError(
                f"guest {member.name}: mem: a request may be repeated, so it says how much memory the guest "
                f"has, such as {serialize_setting(Memory(member.guest.spec.memory // 2))}, and not a change"
            )
        balloon = self._balloon(member)
        before = balloon.size
        try:
            await balloon.resize(wanted.size)
        finally:
            if balloon.size != before:
                whole = balloon.size == member.guest.spec.memory
                self._note(member, _MEM, None if whole else serialize_setting(Memory(balloon.size)))
        return balloon.size != before


def _is_unmade(member: Member, device: str) -> bool:
    """Say whether this is the disk that every kernel has by default, of a file that is not there.

    Linux tells of it as of any other, and panics when it is to be removed.

    Source: Linux arch/um/drivers/ubd_kern.c ``ubd0_init``.
    """
    return device == "ubda" and device not in member.plugged


def _check_alone(member: Member, device: str, disk: Disk) -> None:
    """Refuse a disk that writes where another one does: the kernel locks files against other guests alone."""
    file = _written_file(disk)
    for other, text in member.plugged.items():
        if file is None or other == device or not other.startswith("ubd"):
            continue
        # What a guest was started with may say more than we plug in ourselves.
        with contextlib.suppress(LabError):
            setting = parse_setting(parse_device(other)[0], text)
            if isinstance(setting, Disk) and _written_file(setting) == file:
                break
    else:
        return
    raise LabError(f"guest {member.name}: {device}: {other} writes to {disk.file} already")


def _written_file(disk: Disk) -> str | None:
    return None if disk.read_only else os.path.realpath(disk.file)


def _agrees(device: DeviceName, text: str, told: str) -> bool:
    """Say whether a kernel tells of a device what we know, without all that it leaves out."""
    try:
        setting = parse_setting(device, text)
    except LabError:
        return False
    if isinstance(setting, Disk):
        return told == setting.file + (f",{setting.backing}" if setting.backing else "")
    return isinstance(setting, Console) and told == setting.input


async def _reason(member: Member, printed: int) -> str:
    """Return what a guest's kernel has logged with a refusal, for which it is waited a little."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_REASON_TIME):
            await member.guest.console.grow(printed)
    return _said(member, printed)


def _said(member: Member, printed: int) -> str:
    """Return what a guest's kernel has logged since it had printed so much, on one line."""
    new = member.guest.console.total - printed
    lines = escape(member.guest.console.tail[-new:] if new > 0 else b"").split("\n")
    return "; ".join(line.strip() for line in lines if line.strip())[-_MAX_SAID:]


def _explained(error: MconsoleError, device: DeviceName, *, plug: bool, said: str = "") -> MconsoleError:
    """Return a kernel's refusal with its number, with what it logged and with what would help."""
    text = error.output or "refused without a reason"
    if error.err < 0:
        text += f" ({errno.errorcode.get(-error.err, '?')}, {error.err})"
    if said:
        text += f"; its log: {said}"
    if (hint := _hint(error, device, plug)) is not None:
        text += f"; {hint}"
    return MconsoleError(error.umid, error.command, text, error.err)


def _hint(error: MconsoleError, device: DeviceName, plug: bool) -> str | None:
    if error.output in ("Bad configuration option", "Bad remove option"):
        newer = "; Linux 6.16 and later have only vec ones" if device.kind == "eth" else ""
        return f"this kernel has no {device.kind} devices{newer}"
    if plug and "already configured" in error.output:
        return f"unplug it first: umlab guest device rm {error.umid} {device}"
    if not plug and error.err == -errno.EBUSY:
        if device.is_nic:
            return f"set it down first, in the guest with: ip link set {device} down"
        return f"end what uses it in the guest first, such as with: umount /dev/{device}"
    if device.kind in ("con", "ssl") and "open" in error.output:
        return "end what uses it in the guest first"
    return None
