"""The command line of ``vde_switch``: its options, what they take, and their defaults."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

SYSTEM_DIRECTORY = "/var/run/vde.ctl"
USER_DIRECTORY = "/tmp/vde.ctl"
SYSTEM_SCRIPT = "/etc/vde2/vde_switch.rc"
USER_SCRIPT = ".vde2/vde_switch.rc"
HASH_SIZE = 128

#: Options in the original's order, and whether they take an argument; ``mod`` is an old name.
LONG = {
    **{"help": False, "version": False, "numports": True, "hub": False, "fstp": False},
    **dict.fromkeys(("macaddr", "priority", "hashsize"), True),
    **dict.fromkeys(("sock", "vdesock", "unix", "mod", "mode", "dirmode", "group"), True),
    **{"daemon": False, "pidfile": True, "rcfile": True, "mgmt": True, "mgmtmode": True},
    **dict.fromkeys(("mgmtgroup", "debugclients", "tap"), True),
}
SHORT = {
    **{"h": "help", "v": "version", "n": "numports", "x": "hub", "F": "fstp", "s": "sock", "m": "mode"},
    **{"g": "group", "d": "daemon", "p": "pidfile", "f": "rcfile", "M": "mgmt", "D": "debugclients"},
    "t": "tap",
}
_SAME = {"vdesock": "sock", "unix": "sock", "mod": "mode"}
_MAX_PORTS = 65_536


class OptionError(Exception):
    """The command line cannot be obeyed; the text says why."""


@dataclass
class Options:
    """What the command line asks for.

    Attributes:
        program: The name that it was called by, without the directory.
        directory: Where clients attach; relative paths are not absolute yet.
        ports: The number behind the last port's.
        hub: Whether to forward everything everywhere.
        fstp: Whether a spanning tree was asked for.
        mac: The switch's own address.
        hash_size: Buckets of the address table, as given.
        mode: Permissions of the sockets.
        dirmode: Permissions of the directory, if they are given.
        group: Whose the sockets are, if that is given.
        daemon: Whether to go on in the background.
        pidfile: Where the process's number goes, if anywhere.
        rcfile: The script to begin with, if one is named.
        mgmt: The console's socket, if there is to be one,
        mgmtmode: its permissions,
        mgmtgroup: and whose it is.
        taps: Tap devices to plug in.
    """

    program: str
    directory: str = ""
    ports: int = 32
    hub: bool = False
    fstp: bool = False
    mac: bytes = b""
    hash_size: int = HASH_SIZE
    mode: int = 0o600
    dirmode: int | None = None
    group: str | None = None
    daemon: bool = False
    pidfile: str | None = None
    rcfile: str | None = None
    mgmt: str | None = None
    mgmtmode: int = 0o600
    mgmtgroup: str | None = None
    taps: list[str] = field(default_factory=list)


def obey(options: Options, given: Sequence[tuple[str, str]]) -> None:
    """Put what was given into the options.

    Raises:
        OptionError: A value is not what the option takes.
    """
    for name, value in given:
        match _SAME.get(name, name):
            case "numports":
                options.ports = _number("number of ports", value, 1, _MAX_PORTS)
            case "hub":
                options.hub = True
            case "fstp":
                options.fstp = True
            case "macaddr":
                options.mac = _mac(value)
            case "hashsize":
                options.hash_size = _number("hash size", value, 1, 1 << 20)
            case "sock":
                options.directory = value
            case "mode":
                options.mode = _mode(value, 0o777)
            case "dirmode":
                options.dirmode = _mode(value, 0o7777)
            case "mgmtmode":
                options.mgmtmode = _mode(value, 0o777)
            case "tap":
                options.taps.append(value)
            case "daemon":
                options.daemon = True
            case "group" | "pidfile" | "rcfile" | "mgmt" | "mgmtgroup" as text:
                setattr(options, text, value)
            case _:
                # Numbers for what is not served: the priority in a spanning tree, clients of the debugger.
                _number(name, value, 0, 1 << 31)
    if not any(_SAME.get(name, name) == "sock" for name, _ in given):
        options.directory = USER_DIRECTORY if os.geteuid() else SYSTEM_DIRECTORY
    if not options.mac:
        options.mac = b"\0\xff" + os.urandom(4)


def usage(program: str) -> str:
    """Return the options in a few words each."""
    return f"""Usage: {program} [OPTIONS]
A virtual Ethernet switch for VDE clients.
  -h, --help                 these lines
  -v, --version              the version
  -n, --numports N           the number behind the last port's (32)
  -x, --hub                  forward every frame to every port
  -F, --fstp                 taken, but there is no spanning tree
      --macaddr MAC          the address that the console shows
      --priority N           taken, for a spanning tree
      --hashsize N           taken, and shown on the console
  -s, --sock DIR             where clients attach; also --vdesock, --unix
  -m, --mode MODE            permissions of the sockets, octal (0600)
      --dirmode MODE         permissions of the directory, octal
  -g, --group GROUP          whose directory and sockets are
  -d, --daemon               go on in the background
  -p, --pidfile FILE         write the process number there
  -f, --rcfile FILE          commands to begin with, instead of those in
                             ~/{USER_SCRIPT} or {SYSTEM_SCRIPT}
  -M, --mgmt SOCK            socket of the console
      --mgmtmode MODE        its permissions, octal (0600)
      --mgmtgroup GROUP      whose it is
  -D, --debugclients N       taken, but there are no debug messages
  -t, --tap DEVICE           plug a tap device in"""


def _number(what: str, text: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or not least <= int(text) <= most:
        raise OptionError(f"{text!r} is no {what}; it lies between {least} and {most}")
    return int(text)


def _mode(text: str, most: int) -> int:
    if not re.fullmatch(r"[0-7]{1,7}", text) or int(text, 8) > most:
        raise OptionError(f"{text!r} is no mode; it is octal, up to {most:o}")
    return int(text, 8)


def _mac(text: str) -> bytes:
    if not re.fullmatch(r"(?:[0-9a-fA-F]{1,2}:){5}[0-9a-fA-F]{1,2}", text):
        raise OptionError(f"Invalid MAC Addr {text}")
    return bytes(int(each, 16) for each in text.split(":"))
