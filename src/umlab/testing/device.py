"""The devices of a simulated kernel, as ``config`` and ``remove`` see them, errors included.

Source: Linux arch/um/drivers: mconsole_kern.c, net_kern.c, vector_kern.c, ubd_kern.c, line.c.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from typing import NamedTuple

__all__ = ["Devices", "Verdict"]

_TRANSPORTS = ("daemon", "ethertap", "mcast", "pcap", "slip", "slirp", "tuntap", "ucast", "vde")
_LINES = {"con": 16, "ssl": 64}
_DISKS = 16
_DEFAULT_SWITCH = "/tmp/uml.ctl"
_PHYSICAL_START = "1610612736"


class Verdict(NamedTuple):
    """What the kernel says about a request.

    Attributes:
        err: 0, 1 or a negative errno.
        text: The value that was asked for, or the reason of a refusal.
    """

    err: int
    text: str


_DONE = Verdict(0, "")
_OPEN = Verdict(-errno.EINVAL, "Device is already open")
_NONE = Verdict(-errno.EINVAL, "configured as 'none'")
_MISSING = Verdict(-errno.ENODEV, "Device doesn't exist")
_BAD_NUMBER = Verdict(-errno.EINVAL, "Bad device number")
_NO_NUMBER = Verdict(1, "Couldn't parse device number")
_NO_GET = Verdict(1, "No get_config routine defined")
_CONFIGURED = Verdict(-errno.EINVAL, "Device already configured")
_OUT_OF_RANGE = Verdict(-errno.EINVAL, "Device number out of range")


class Devices:
    """What is plugged in.

    Attributes:
        values: Device, such as ``eth0``, ``ubd3`` or ``con4``, to its setting.
        open: Devices in use: an interface that is up, a disk that is mounted, a console with a program.
        memory_changes: What ``config mem=`` asked for, in order.
    """

    def __init__(self) -> None:
        self.values = {"ubd0": "root_fs"}
        self.open = {"con0"}
        self.memory_changes: list[str] = []

    def config(self, text: str) -> Verdict:
        """Run ``config``: a text with an equals sign sets, any other asks."""
        kind, rest = _split(text)
        if not kind:
            return Verdict(1, "Bad configuration option")
        setting = "=" in rest
        if kind in ("eth", "vec"):
            return self._set_nic(kind, rest) if setting else _NO_GET
        if kind == "ubd":
            return self._set_disk(rest) if setting else self._get_disk(rest)
        if kind in _LINES:
            return self._set_line(kind, rest) if setting else self._get_line(kind, rest)
        return self._set_memory(rest) if setting else Verdict(0, _PHYSICAL_START)

    def remove(self, text: str) -> Verdict:
        """Run ``remove``."""
        kind, rest = _split(text)
        if not kind:
            return Verdict(1, "Bad remove option")
        if kind == "mem":
            return Verdict(-errno.EBUSY, "Memory doesn't support the remove operation")
        number, after = _disk_number(rest) if kind == "ubd" else _number(rest)
        if number is None or (kind in _LINES and after):
            return _NO_NUMBER
        if kind == "ubd" and number >= _DISKS:
            return Verdict(1, f"Invalid device number - must be between 0 and {_DISKS - 1}")
        device = f"{kind}{number}"
        if kind in _LINES:
            refusal = self._free_line(kind, number) or (_NONE if self.values.get(device) == "none" else None)
            return refusal or self._put(device, "none")
        if device not in self.values:
            return _MISSING
        if device in self.open:
            return Verdict(-errno.EBUSY, "Device is currently open")
        del self.values[device]
        return _DONE

    def _put(self, device: str, value: str) -> Verdict:
        self.values[device] = value
        return _DONE

    def _set_nic(self, kind: str, rest: str) -> Verdict:
        number, after = _number(rest)
        sign = "=" if kind == "eth" else ":"
        if number is None and not (kind == "vec" and after.startswith("=")):
            return _BAD_NUMBER
        if not after.startswith(sign):
            return Verdict(-errno.EINVAL, f"Expected '{sign}' after device number")
        device, value = f"{kind}{number}", after[1:]
        if device in self.values:
            return _CONFIGURED
        if kind == "eth":
            transport, *options = value.split(",")
            if transport not in _TRANSPORTS:
                return Verdict(1, "")
            if transport == "daemon" and not _switch_listens(options):
                # The kernel says OK to a device that it could not connect and gave up.
                return _DONE
        elif any(part.count("=") > 1 for part in value.split(",")):
            return Verdict(-errno.EINVAL, "vector_config failed to parse parameters")
        return self._put(device, value)

    def _set_disk(self, rest: str) -> Verdict:
        number, after = _disk_number(rest)
        if after.startswith(("=", ":")) and number is None:
            return _DONE
        if number is None or number >= _DISKS:
            return Verdict(1, "Device number out of range")
        device = f"ubd{number}"
        if device in self.values:
            return Verdict(-errno.EBUSY, "Device is already configured")
        # Flags may stand before the sign; a serial number after the second comma.
        setting = re.split("[=:]", after, maxsplit=1)[1]
        file, backing = [*setting.split(","), ""][:2]
        if not os.path.exists(backing or file):
            return Verdict(-errno.ENOENT, "Couldn't determine size of device's file")
        return self._put(device, f"{file},{backing}" if backing else file)

    def _get_disk(self, rest: str) -> Verdict:
        number, _ = _disk_number(rest)
        if number is None or number >= _DISKS:
            return Verdict(1, "ubd_get_config : device number out of range")
        return Verdict(0, self.values.get(f"ubd{number}", ""))

    def _set_line(self, kind: str, rest: str) -> Verdict:
        number, after = _number(rest)
        if number is None and after.startswith("="):
            return Verdict(-errno.EINVAL, "Can't configure all devices from mconsole")
        if number is None or not after.startswith("="):
            return Verdict(-errno.EINVAL, "Couldn't parse device number")
        if refusal := self._free_line(kind, number):
            return refusal
        # Of a pair, the kernel keeps the first half to show.
        value = after[1:].partition(",")[0]
        if value == "none":
            return _NONE
        if value.partition(":")[0] not in ("fd", "null", "port", "pts", "pty", "tty", "xterm"):
            return Verdict(-1, "failed to parse channel pair")
        return self._put(f"{kind}{number}", value)

    def _get_line(self, kind: str, rest: str) -> Verdict:
        number, after = _number(rest)
        if number is None or after:
            return Verdict(1, "line_get_config failed to parse device number")
        if number >= _LINES[kind]:
            return Verdict(1, "device number out of range")
        return Verdict(0, self.values.get(f"{kind}{number}", "null" if kind == "con" else "pty"))

    def _free_line(self, kind: str, number: int) -> Verdict | None:
        device = f"{kind}{number}"
        if number >= _LINES[kind]:
            return _OUT_OF_RANGE
        if device in self.open:
            return _OPEN
        return None

    def _set_memory(self, rest: str) -> Verdict:
        change = rest.partition("=")[2]
        if not change.startswith(("-", "+")):
            return Verdict(-errno.EINVAL, "Expected increment to start with '-' or '+'")
        self.memory_changes.append(change)
        return _DONE


def _split(text: str) -> tuple[str, str]:
    for kind in ("eth", "vec", "ubd", "con", "ssl", "mem"):
        if text.startswith(kind):
            return kind, text.removeprefix(kind)
    return "", text


def _number(text: str) -> tuple[int | None, str]:
    digits = re.match("[0-9]*", text)
    assert digits is not None
    return (int(digits[0]) if digits[0] else None), text[digits.end() :]


def _disk_number(text: str) -> tuple[int | None, str]:
    if re.match("[a-z]", text):
        return ord(text[0]) - ord("a"), text[1:]
    return _number(text)


def _switch_listens(options: list[str]) -> bool:
    path = options[2] if len(options) > 2 and options[2] else _DEFAULT_SWITCH
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False
