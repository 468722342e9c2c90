"""Devices of a guest: their names, and their settings as values that are checked.

A setting is what stands behind the sign in the kernel's ``config eth1=...``, ``config vec1:...`` and so on,
with one addition: a disk's letters, which the kernel wants in front of the sign, may stand before it as
``r=/srv/image``, so that a name always is the device's name in the guest.

What only the host can tell, such as whether anybody listens at a path, is in :mod:`umlab.guest.plug`.

Source: Linux arch/um/drivers/{net_kern,daemon_kern,vector_user,ubd_kern,line,chan_kern,mconsole_kern}.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, cast

from umlab.errors import LabError
from umlab.guest.cmdline import DaemonNic, check_mac, check_nic, check_path, nic_settings
from umlab.guest.vector import VectorNic

Kind = Literal["eth", "vec", "ubd", "con", "ssl", "mem"]
#: How many of a kind there are; of NICs the kernel has no bound.
_COUNT = {"eth": 1000, "vec": 1000, "ubd": 16, "con": 16, "ssl": 64}
#: The most that a request to the management console holds.
_MAX_REQUEST = 511
_NAME = re.compile(r"(eth|vec|con|ssl)(0|[1-9][0-9]{0,2})|ubd(?:([a-z])|(0|[1-9][0-9]?))([rscdt]*)|(mem)")
#: The older kinds of NIC beside ``daemon``, and which of their arguments is the MAC.
_LEGACY_MAC = {
    **{"vde": 1, "tuntap": 1, "ethertap": 1, "mcast": 0, "ucast": 0, "slirp": 0},
    **{"slip": None, "pcap": None},
}
_SIZE = re.compile(r"([+-]?)([0-9]{1,15})([KMG]?)", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_PAGE = 4096
_CHANNEL = re.compile(r"null|none|pty|pts|xterm|tty:(?P<path>.*)|(?P<what>port|fd):(?P<number>[0-9]{1,5})")
#: Where a console goes, for errors.
_CHANNELS = "null, none, pty, pts, xterm, tty:PATH, port:NUMBER or fd:NUMBER"


@dataclass(frozen=True, slots=True)
class DeviceName:
    """A device of a guest; its text is the name that it has in the guest.

    Attributes:
        kind: What it is.
        number: Which one of its kind, from 0.
    """

    kind: Kind
    number: int = 0

    def __str__(self) -> str:
        if self.kind == "ubd":
            return f"ubd{chr(ord('a') + self.number)}"
        return self.kind if self.kind == "mem" else f"{self.kind}{self.number}"

    @property
    def is_nic(self) -> bool:
        """Whether it is a NIC, of which the kernel does not tell how it is set."""
        return self.kind in ("eth", "vec")


@dataclass(frozen=True, slots=True)
class LegacyNic:
    """A NIC of one of the kernel's older kinds, other than ``daemon``.

    Attributes:
        transport: Such as ``vde`` or ``mcast``.
        arguments: As the kernel takes them, in order.
    """

    transport: str
    arguments: tuple[str, ...] = ()

    @property
    def mac(self) -> str | None:
        """Its address, ``None`` where the kernel takes a random one."""
        index = _LEGACY_MAC[self.transport]
        given = index is not None and index < len(self.arguments)
        return (self.arguments[index] or None) if index is not None and given else None


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device ``ubdN``.

    Attributes:
        file: The image, or with ``backing`` the COW file, absolute.
        backing: The image under the COW file, absolute; never written to.
        read_only: The guest cannot write to it.
        sync: What the guest writes is on the host's disk when the guest is told so.
        data_only: The file is taken as it is, also where it looks like a COW file.
        shared: The file is not locked, so that other guests can have it as well.
        no_trim: What the guest discards stays in the file.
        serial: What the guest reads as the disk's serial number.
    """

    file: str
    backing: str | None = None
    read_only: bool = False
    sync: bool = False
    data_only: bool = False
    shared: bool = False
    no_trim: bool = False
    serial: str | None = None

    def __post_init__(self) -> None:
        """Refuse what the kernel would read otherwise.

        Raises:
            LabError: A value is not usable; names it.
        """
        check_path("image", self.file, ",:")
        if self.backing is not None:
            check_path("backing image", self.backing, ",:")
            if self.data_only:
                raise LabError("a disk with a COW file cannot have the letter d, which says that it has none")
        if self.serial is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,20}", self.serial):
            raise LabError(f"serial {self.serial[:64]!r} is not of at most 20 letters, digits, '.', '_', '-'")

    @property
    def letters(self) -> str:
        """What the kernel wants in front of the sign."""
        return "".join(letter for letter, name in _LETTERS.items() if getattr(self, name))


_LETTERS = {"r": "read_only", "s": "sync", "d": "data_only", "c": "shared", "t": "no_trim"}


@dataclass(frozen=True, slots=True)
class Console:
    """Where a console ``conN`` or a serial line ``sslN`` goes.

    Attributes:
        input: What it reads: a channel such as ``pty`` or ``fd:5``.
        output: Where it writes, the same unless given.
    """

    input: str
    output: str | None = None

    def __post_init__(self) -> None:
        """Refuse what is no channel.

        Raises:
            LabError: A channel is none; names it.
        """
        for channel in (self.input, self.output):
            if channel is not None:
                _check_channel(channel)


@dataclass(frozen=True, slots=True)
class Memory:
    """How much memory a guest has; the kernel knows only changes.

    Attributes:
        size: Bytes, whole pages.
        sign: ``+`` or ``-`` for so much more or less, empty for so much.
    """

    size: int
    sign: Literal["", "+", "-"] = ""

    def __post_init__(self) -> None:
        """Refuse what the kernel would round.

        Raises:
            LabError: It is nothing, or no whole pages.
        """
        if self.size <= 0 or self.size % _PAGE:
            raise LabError(f"{self.size} bytes of memory are no whole pages of {_PAGE} bytes")


#: Every kind of setting.
Setting = DaemonNic | LegacyNic | VectorNic | Disk | Console | Memory


def parse_device(text: str) -> tuple[DeviceName, str]:
    """Return a device's name and, of a disk, the letters behind it.

    Args:
        text: Such as ``eth0``, ``vec1``, ``ubdb``, ``ubd1r``, ``con2``, ``ssl0`` or ``mem``.

    Raises:
        LabError: There is no such device.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        kinds = "ethN, vecN, ubdN, conN, sslN or mem"
        raise LabError(f"there is no device {text[:64]!r}; write {kinds}, such as eth1 or ubdb")
    _, number, letter, digits, letters, _ = found.groups()
    kind = cast(Kind, text[:3])
    if number is not None:
        name = DeviceName(kind, int(number))
    elif kind == "mem":
        return DeviceName("mem"), ""
    else:
        name = DeviceName("ubd", ord(letter) - ord("a") if letter else int(digits))
    count = _COUNT[name.kind]
    if name.number >= count:
        last = DeviceName(name.kind, count - 1)
        raise LabError(f"there is no device {text!r}; the last one of its kind is {last}")
    return name, letters or ""


def parse_setting(name: DeviceName, text: str, letters: str = "") -> Setting:
    """Return a setting as a value.

    Args:
        name: The device.
        text: The setting.
        letters: Of a disk, the letters that stood behind its name.

    Raises:
        LabError: The kernel would not take it as it is meant; says what is wrong.
    """
    for char in text:
        if ord(char) < 0x20 or char == "\x7f" or 0xD800 <= ord(char) < 0xE000:
            raise LabError(f"{name}: {char!r} cannot be in a device's setting")
    try:
        setting = _PARSERS[name.kind](text)
        if letters:
            assert isinstance(setting, Disk)
            given = {field.name: getattr(setting, field.name) for field in fields(setting)}
            setting = Disk(**given | {_LETTERS[letter]: True for letter in letters})
    except LabError as error:
        raise LabError(f"{name}: {error}") from None
    size = len(request(name, setting).encode())
    if size > _MAX_REQUEST:
        raise LabError(f"{name}: its setting makes a request of {size} bytes, {_MAX_REQUEST} are possible")
    return setting


def serialize_setting(setting: Setting) -> str:
    """Return the text of a setting; of a disk with its letters."""
    if isinstance(setting, Disk):
        letters = setting.letters
        return f"{letters}={_kernel_text(setting)}" if letters else _kernel_text(setting)
    return _kernel_text(setting)


def request(name: DeviceName, setting: Setting) -> str:
    """Return the management console's request that plugs a device."""
    letters = setting.letters if isinstance(setting, Disk) else ""
    # Only the vector driver refuses "=": its own setting is a list of them.
    return f"config {name}{letters}{':' if name.kind == 'vec' else '='}{_kernel_text(setting)}"


def size_text(size: int) -> str:
    """Return bytes in the largest unit of which they are whole ones, as :class:`Memory` is written."""
    unit = next(unit for unit in ("G", "M", "K", "") if size % _UNITS[unit] == 0)
    return f"{size // _UNITS[unit]}{unit}"


def _kernel_text(setting: Setting) -> str:
    match setting:
        case DaemonNic():
            ((_, text),) = nic_settings((setting,))
            return text
        case LegacyNic():
            return ",".join((setting.transport, *setting.arguments))
        case VectorNic():
            return setting.text
        case Disk():
            parts = [setting.file, setting.backing or "", setting.serial or ""]
            return ",".join(parts).rstrip(",")
        case Console():
            return setting.input + (f",{setting.output}" if setting.output is not None else "")
        case Memory():
            return setting.sign + size_text(setting.size)


def _parse_eth(text: str) -> DaemonNic | LegacyNic:
    transport, *arguments = text.split(",")
    if transport == "daemon":
        return _parse_daemon(arguments)
    if transport not in _LEGACY_MAC:
        kinds = ", ".join(("daemon", *_LEGACY_MAC))
        raise LabError(f"there is no transport {transport[:64]!r} for an eth device, only {kinds}")
    nic = LegacyNic(transport, tuple(arguments))
    if nic.mac is not None:
        check_mac(nic.mac)
    return nic


def _parse_daemon(arguments: list[str]) -> DaemonNic:
    mac, kind, control, data, *more = [*arguments, *[""] * (4 - len(arguments))]
    if kind not in ("", "unix") or not control or more:
        raise LabError("write daemon,[MAC],unix,PATH with the path of the switch's control socket")
    nic = DaemonNic(control, mac or None, data or None)
    check_nic(nic)
    return nic


def _parse_disk(text: str) -> Disk:
    found = re.match(r"([rscdt]+)=", text)
    parts = (text[found.end() :] if found else text).split(",")
    if len(parts) > 3:
        raise LabError("write FILE[,BACKING[,SERIAL]]")
    file, backing, serial = [*parts, *[""] * (3 - len(parts))]
    letters = found[1] if found else ""
    on = {name: letter in letters for letter, name in _LETTERS.items()}
    return Disk(file, backing or None, serial=serial or None, **on)


def _parse_console(text: str) -> Console:
    channel, comma, output = text.partition(",")
    return Console(channel, output if comma else None)


def _parse_memory(text: str) -> Memory:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise LabError(f"{text[:64]!r} is no amount of memory such as 96M")
    sign: Literal["", "+", "-"] = "+" if found[1] == "+" else "-" if found[1] else ""
    return Memory(int(found[2]) * _UNITS[found[3].upper()], sign)


_PARSERS: dict[Kind, Callable[[str], Setting]] = {
    "eth": _parse_eth,
    "vec": VectorNic.parse,
    "ubd": _parse_disk,
    "con": _parse_console,
    "ssl": _parse_console,
    "mem": _parse_memory,
}


def _check_channel(channel: str) -> None:
    found = _CHANNEL.fullmatch(channel)
    if found is None:
        raise LabError(f"{channel[:64]!r} is no channel; write {_CHANNELS}")
    if found["path"] is not None:
        check_path("terminal", found["path"], ",")
    if found["what"] == "port" and not 1 <= int(found["number"]) <= 65535:
        raise LabError(f"{channel!r} is no TCP port")
