"""The NICs on a kernel's command line, also one that others have written.

Source: Linux arch/um/drivers/{net,vector}_kern.c and the transports' own there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from umlab._boot import boot_of

__all__ = ["CommandLineNic", "nics_of", "parse_nics"]

#: The vector driver takes a colon, since its setting is a list of assignments.
_NIC = re.compile(r"(eth[0-9]{1,4})=(.*)|(vec[0-9]{1,4}):(.*)", re.DOTALL)
_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
#: Transports whose setting has a switch's socket, and which of its words that is: the first is 0.
_SOCKET_WORD = {"daemon": 3, "vde": 1}
_DEFAULT_SOCKET = {"daemon": "/tmp/uml.ctl"}
#: Bytes of a command line that are read; a kernel takes less.
_MAX_COMMAND = 16_384


@dataclass(frozen=True, slots=True)
class CommandLineNic:
    """A NIC that a kernel was told to have; all of it is text that somebody has chosen.

    Attributes:
        name: Such as ``eth0`` or ``vec0``.
        setting: What stands behind the sign.
        transport: Such as ``daemon`` or ``bess``; empty where none is named.
        mac: Its address, in small letters, where one is named.
        path: The switch's socket, where the transport has one, as written.
    """

    name: str
    setting: str
    transport: str
    mac: str | None
    path: str | None


def parse_nics(words: Iterable[str]) -> list[CommandLineNic]:
    """Return the NICs on a command line, by name; other words are passed over.

    Args:
        words: Its words.  Of two for one device the kernel takes the first.
    """
    nics: dict[str, CommandLineNic] = {}
    for word in words:
        if match := _NIC.fullmatch(word):
            eth, eth_setting, vec, vec_setting = match.groups()
            nic = _eth(eth, eth_setting) if eth else _vec(vec, vec_setting)
            nics.setdefault(nic.name, nic)
    return sorted(nics.values(), key=lambda nic: (nic.name[:3], int(nic.name[3:])))


def nics_of(pid: int) -> list[CommandLineNic] | None:
    """Return the NICs that a running kernel was started with.

    Args:
        pid: Its main process.

    Returns:
        ``None`` where the process is no kernel, or does not let us look.
    """
    with contextlib.suppress(OSError):
        if boot_of(pid) is not None:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read(_MAX_COMMAND).split(b"\0")
            return parse_nics(map(os.fsdecode, words))
    return None


def _eth(name: str, setting: str) -> CommandLineNic:
    transport, *rest = words = setting.split(",")
    mac = next((word.lower() for word in rest if _MAC.fullmatch(word)), None)
    at = _SOCKET_WORD.get(transport)
    path = words[at] if at is not None and len(words) > at else ""
    return CommandLineNic(name, setting, transport, mac, path or _DEFAULT_SOCKET.get(transport))


def _vec(name: str, setting: str) -> CommandLineNic:
    values = dict(word.partition("=")[::2] for word in setting.split(","))
    mac = values.get("mac", "")
    transport = values.get("transport", "")
    path = values.get("dst") if transport == "bess" else None
    return CommandLineNic(name, setting, transport, mac.lower() if _MAC.fullmatch(mac) else None, path)
