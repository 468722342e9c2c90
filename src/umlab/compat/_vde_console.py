"""The commands of a ``vde_switch`` console, on a switch of ours."""

from __future__ import annotations

import dataclasses
import enum
import errno
import grp
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import umlab
from umlab.compat._vde_argument import CommandError, read_number, two_words
from umlab.compat._vde_ports import Port, VdeSwitch, vde_vlan
from umlab.compat._vde_script import Files, read_script
from umlab.compat._vde_vlans import VlanCommands
from umlab.daemon.access import find_group, find_user, user_name
from umlab.daemon.switch import PortInfo
from umlab.errors import SwitchError
from umlab.switch.counters import PortCounters
from umlab.switch.model import MAX_AGEING_NS, SECOND_NS
from umlab.wire.ethernet import format_mac
from umlab.wire.vde_console import (
    Command,
    ConsolePort,
    find_command,
    format_help,
    format_port,
    format_station,
    menu,
    read_command,
    serialize_reply,
    title,
)

PROGRAM = f"umlab {umlab.__version__}"
NOBODY = "NONE"

#: Commands of the original that ours has not, for now or at all.
NOT_SERVED = (
    *("debug/list", "debug/add", "debug/del", "plugin/list", "plugin/add", "plugin/del"),
    *("fstp/showinfo", "fstp/setfstp", "fstp/setedge", "fstp/bonus", "fstp/print"),
    "hash/setminper",
)

#: Port numbers end below this one.
_MAX_END = 65_536
_MAX_HASH_SIZE = 1 << 20
#: Scripts within scripts, and the lines that all of them together may have executed.
_MAX_DEPTH = 8
_MAX_LINES = 10_000
_MODULES = {"vde": "unix prog", "tap": "tuntap"}
_MAC = re.compile(r"(?:[0-9a-fA-F]{1,2}:){5}[0-9a-fA-F]{1,2}")


class End(enum.Enum):
    """What a command ends."""

    NOTHING = "nothing"
    SESSION = "session"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command came to.

    Attributes:
        reply: What is to be said, without the prompt.
        code: Its error number.
        end: What is to be ended.
    """

    reply: bytes = b""
    code: int = 0
    end: End = End.NOTHING


@dataclass(frozen=True, slots=True)
class Setting:
    """What a console shows of how the switch was started.

    Attributes:
        directory: Where clients attach.
        mode: Permissions of the sockets there.
        mac: The switch's own address.
        console: The console's socket, if there is one,
        console_mode: and its permissions.
        hash_size: Buckets of the address table.
    """

    directory: str
    mode: int
    mac: bytes
    console: str | None
    console_mode: int
    hash_size: int


@dataclass(frozen=True, slots=True)
class _Handler:
    """What does a command's work: returns data, or nothing; whether it ever has data."""

    run: Callable[[str], str | None]
    has_data: bool


class Console:
    """Executes commands.

    Args:
        switch: What they are about.
        setting: How it was started.
    """

    def __init__(self, switch: VdeSwitch, setting: Setting) -> None:
        self._switch = switch
        self._vlans = VlanCommands(switch)
        self._setting = setting
        self._started = time.monotonic()
        self._hash_size = setting.hash_size
        self._gc_interval = 2
        #: What the script that is being executed has left of its lines.
        self._lines_left = 0
        #: In the help's order; of two of which one begins like the other, the longer is the first.
        self._commands: dict[Command, _Handler | None] = {
            menu("ds", "DATA SOCKET"): None,
            Command("ds/showinfo", "where clients attach"): _Handler(self._ds_showinfo, True),
            Command("help", "this list, or what begins like ARG", "[arg]"): _Handler(self._help, True),
            Command("logout", "leave the console"): None,
            Command("shutdown", "end the switch"): None,
            Command("showinfo", "version, process and time"): _Handler(self._showinfo, True),
            Command("load", "execute a script", "path"): None,
            menu("hash", "HASH TABLE"): None,
            Command("hash/showinfo", "how addresses are kept"): _Handler(self._hash_showinfo, True),
            Command("hash/setsize", "how many buckets are shown", "N"): _Handler(self._hash_setsize, False),
            Command("hash/setgcint", "the interval that is shown", "N"): _Handler(self._hash_setgcint, False),
            Command("hash/setexpire", "seconds until an address is forgotten", "N"): _Handler(
                self._hash_setexpire, False
            ),
            Command("hash/print", "every address"): _Handler(self._hash_print, True),
            Command("hash/find", "one address", "MAC [VLAN]"): _Handler(self._hash_find, True),
            menu("port", "PORT STATUS"): None,
            Command("port/showinfo", "how many there are, hub or switch"): _Handler(
                self._port_showinfo, True
            ),
            Command("port/setnumports", "how many there may be", "N"): _Handler(
                self._port_setnumports, False
            ),
            Command("port/sethub", "1 for a hub, 0 for a switch", "0/1"): _Handler(self._port_sethub, False),
            Command("port/setvlan", "VLAN without tags of a port", "N VLAN"): _Handler(
                self._vlans.set_untagged, False
            ),
            Command("port/createauto", "make a port for those who ask for it"): _Handler(
                self._port_createauto, True
            ),
            Command("port/create", "the same with a number", "N"): _Handler(self._port_create, False),
            Command("port/remove", "unmake an unused port", "N"): _Handler(self._port_remove, False),
            Command("port/allocatable", "1 for clients that ask for none, too", "N 0/1"): _Handler(
                self._port_allocatable, False
            ),
            Command("port/setuser", "who may have a port, or NONE", "N user"): _Handler(
                self._port_setuser, False
            ),
            Command("port/setgroup", "whose members may have it, or NONE", "N group"): _Handler(
                self._port_setgroup, False
            ),
            Command("port/epclose", "unplug endpoint ID of port N", "N ID"): _Handler(
                self._port_epclose, False
            ),
            Command("port/resetcounter", "count from 0", "[N]"): _Handler(self._port_resetcounter, False),
            Command("port/print", "ports in use", "[N]"): _Handler(self._port_print, True),
            Command("port/allprint", "all ports", "[N]"): _Handler(self._port_allprint, True),
            menu("vlan", "VLAN"): None,
            Command("vlan/create", "make a VLAN", "N"): _Handler(self._vlans.create, False),
            Command("vlan/remove", "unmake an unused VLAN", "N"): _Handler(self._vlans.remove, False),
            Command("vlan/addport", "give a port a VLAN with tags", "N port"): _Handler(
                self._vlans.add_port, False
            ),
            Command("vlan/delport", "take it from the port", "N port"): _Handler(
                self._vlans.remove_port, False
            ),
            Command("vlan/print", "VLANs and ports in use", "[N]"): _Handler(self._vlan_print, True),
            Command("vlan/allprint", "VLANs and all ports", "[N]"): _Handler(self._vlan_allprint, True),
        }
        self._handlers = {
            command.path: handler
            for command, handler in self._commands.items()
            if handler is not None or command.path in ("logout", "shutdown", "load")
        }

    def execute(self, line: str, *, owner: bool = True, within: Files = ()) -> Outcome:
        """Do what a line says.

        Args:
            line: The command, as :func:`umlab.wire.vde_console.read_command` returns it.
            owner: Whether who says it may read the switch's files: ``load`` shows what is in them.
            within: The scripts that it stands in.
        """
        if not line:
            return Outcome()
        found = find_command(line, (*self._handlers, *NOT_SERVED))
        if found is None:
            return _failed(errno.ENOSYS)
        path, argument = found
        if path in NOT_SERVED:
            return _failed(errno.EOPNOTSUPP)
        if path == "load":
            return self._load(argument, within) if owner else _failed(errno.EPERM)
        handler = self._handlers[path]
        if handler is None:
            return Outcome(end=End.SESSION if path == "logout" else End.SWITCH)
        try:
            data, code = handler.run(argument), 0
        except CommandError as error:
            data, code = None, error.code
        if handler.has_data and data is None:
            data = ""
        return Outcome(serialize_reply(code, _text_of(code), data), code)

    def script(self, path: str, within: Files = ()) -> Iterator[tuple[str, Outcome]]:
        """Execute the lines of a file, and yield each with what it came to.

        Raises:
            OSError: It cannot be read, or stands in itself or too deep; no line has been executed.
        """
        file, text = read_script(path)
        if file in within or len(within) >= _MAX_DEPTH:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if not within:
            self._lines_left = _MAX_LINES
        return self._execute_lines(text.decode("utf-8", "surrogateescape").splitlines(), (*within, file))

    def _execute_lines(self, lines: list[str], within: Files) -> Iterator[tuple[str, Outcome]]:
        for line in lines:
            if not self._lines_left:
                yield line, _failed(errno.E2BIG)
                return
            self._lines_left -= 1
            yield line, self.execute(read_command(line), within=within)

    def _load(self, path: str, within: Files) -> Outcome:
        said = []
        end = End.NOTHING
        try:
            for line, outcome in self.script(path, within):
                said.append(f"vde[{path}]: {line}\n".encode("utf-8", "surrogateescape") + outcome.reply)
                if outcome.end is End.SWITCH:
                    end = End.SWITCH
                    break
        except OSError as error:
            return _failed(error.errno or errno.EIO)
        return Outcome(b"".join(said) + serialize_reply(0, _text_of(0)), 0, end)

    def _ds_showinfo(self, argument: str) -> str:
        return f"ctl dir {self._setting.directory}\nstd mode {self._setting.mode:04o}\n"

    def _help(self, argument: str) -> str:
        return format_help(self._commands, argument)

    def _showinfo(self, argument: str) -> str:
        uptime = int(time.monotonic() - self._started)
        mac = format_mac(self._setting.mac)
        text = f"{title(PROGRAM)}\npid {os.getpid()} MAC {mac} uptime {uptime}\n"
        if self._setting.console is not None:
            text += f"mgmt {self._setting.console} perm {self._setting.console_mode:04o}\n"
        return text

    def _hash_showinfo(self, argument: str) -> str:
        expire = self._switch.config.ageing_time_ns // SECOND_NS
        return (
            f"Hash size {self._hash_size}\nGC interval {self._gc_interval} secs\n"
            f"GC expire {expire} secs\nMin persistence 0 secs\n"
        )

    def _hash_setsize(self, argument: str) -> None:
        size = read_number(argument)
        if not 1 <= size <= _MAX_HASH_SIZE:
            raise CommandError(errno.EINVAL)
        self._hash_size = power_of_two(size)

    def _hash_setgcint(self, argument: str) -> None:
        self._gc_interval = read_number(argument)

    def _hash_setexpire(self, argument: str) -> None:
        age_ns = read_number(argument) * SECOND_NS
        if not 1 <= age_ns <= MAX_AGEING_NS:
            raise CommandError(errno.EINVAL)
        self._switch.configure(dataclasses.replace(self._switch.config, ageing_time_ns=age_ns))

    def _hash_print(self, argument: str) -> str:
        return "".join(self._stations())

    def _hash_find(self, argument: str) -> str:
        words = argument.split()
        if not words or not _MAC.fullmatch(words[0]):
            raise CommandError(errno.EINVAL)
        vlan = read_number(words[1]) if len(words) > 1 else 0
        mac = bytes(int(each, 16) for each in words[0].split(":"))
        found = "".join(self._stations(mac, vlan))
        if not found:
            raise CommandError(errno.ENODEV)
        return found

    def _stations(self, mac: bytes | None = None, vlan: int = 0) -> Iterator[str]:
        """Yield the lines about every address, or about one of a VLAN."""
        now_ns = self._switch.snapshot().at_ns
        for entry in self._switch.fdb():
            seen_in = vde_vlan(entry.vid)
            if mac is None or (mac, vlan) == (entry.mac, seen_in):
                age = max(0, now_ns - entry.last_seen_ns) // SECOND_NS
                yield format_station(entry.mac, seen_in, entry.port_no, age)

    def _port_showinfo(self, argument: str) -> str:
        hub = "true" if self._switch.config.hub else "false"
        return f"Numports={self._switch.end}\nHUB={hub}\ncounters=true\n"

    def _port_setnumports(self, argument: str) -> None:
        end = read_number(argument)
        if not 1 <= end <= _MAX_END:
            raise CommandError(errno.EINVAL)
        try:
            self._switch.set_end(end)
        except SwitchError:
            raise CommandError(errno.EADDRINUSE) from None

    def _port_sethub(self, argument: str) -> None:
        self._switch.hub = read_number(argument) != 0
        self._switch.apply()

    def _port_createauto(self, argument: str) -> str:
        port_no = self._switch.unused_port()
        if port_no is None:
            raise CommandError(errno.ENOSPC)
        self._switch.table[port_no] = Port(allocatable=False)
        return f"Port {port_no:04d}\n"

    def _port_create(self, argument: str) -> None:
        port_no = self._valid(argument)
        if port_no == 0:
            self._port_createauto("")
        elif port_no in self._switch.table:
            raise CommandError(errno.EEXIST)
        else:
            self._switch.table[port_no] = Port(allocatable=False)

    def _port_remove(self, argument: str) -> None:
        port_no = self._valid(argument)
        self._existing(port_no)
        if port_no in self._plugged():
            raise CommandError(errno.EADDRINUSE)
        del self._switch.table[port_no]
        self._switch.apply()

    def _port_allocatable(self, argument: str) -> None:
        number, value = two_words(argument)
        if not re.fullmatch(r"[0-9]{1,9}", value):
            raise CommandError(errno.EINVAL)
        self._existing(self._valid(number)).allocatable = int(value) != 0

    def _port_setuser(self, argument: str) -> None:
        number, name = two_words(argument)
        self._existing(self._valid(number)).uid = _found(find_user, name)

    def _port_setgroup(self, argument: str) -> None:
        number, name = two_words(argument)
        self._existing(self._valid(number)).gid = _found(find_group, name)

    def _port_epclose(self, argument: str) -> None:
        number, endpoint = two_words(argument)
        port_no = self._valid(number)
        if port_no not in self._plugged() or read_number(endpoint) != port_no:
            raise CommandError(errno.ENXIO)
        self._switch.remove_port(port_no)

    def _port_resetcounter(self, argument: str) -> None:
        wanted = self._valid(argument) if argument else None
        for port_no, counters in self._switch.snapshot().ports.items():
            if wanted in (None, port_no):
                self._switch.table[port_no].counted = counters

    def _port_print(self, argument: str) -> str:
        return self._ports(argument, all_of_them=False)

    def _port_allprint(self, argument: str) -> str:
        return self._ports(argument, all_of_them=True)

    def _ports(self, argument: str, *, all_of_them: bool) -> str:
        wanted = self._valid(argument) if argument else None
        plugged = self._plugged()
        counters = self._switch.snapshot().ports
        shown = "".join(
            format_port(_shown(port_no, port, plugged.get(port_no), counters.get(port_no, port.counted)))
            for port_no, port in sorted(self._switch.table.items())
            if wanted in (None, port_no) and (all_of_them or port_no in plugged)
        )
        if wanted is not None and not shown:
            raise CommandError(errno.ENXIO)
        return shown

    def _vlan_print(self, argument: str) -> str:
        return self._vlans.show(argument, all_of_them=False)

    def _vlan_allprint(self, argument: str) -> str:
        return self._vlans.show(argument, all_of_them=True)

    def _plugged(self) -> dict[int, PortInfo]:
        return {port.port_no: port for port in self._switch.ports()}

    def _valid(self, argument: str) -> int:
        """Return a port number that may be one, 0 for what is no number."""
        port_no = read_number(argument)
        if not 0 <= port_no < self._switch.end:
            raise CommandError(errno.EINVAL)
        return port_no

    def _existing(self, port_no: int) -> Port:
        try:
            return self._switch.table[port_no]
        except KeyError:
            raise CommandError(errno.ENXIO) from None


def power_of_two(size: int) -> int:
    """Return the lowest power of two that is not below a size."""
    return 1 << (size - 1).bit_length()


def _shown(port_no: int, port: Port, plugged: PortInfo | None, now: PortCounters) -> ConsolePort:
    since = port.counted
    peer = plugged.peer if plugged else None
    return ConsolePort(
        port_no=port_no,
        untagged=port.untagged,
        allocatable=port.allocatable,
        current_user=user_name(peer.uid) if peer else NOBODY,
        user=NOBODY if port.uid is None else user_name(port.uid),
        group=NOBODY if port.gid is None else _group_name(port.gid),
        rx=(now.rx_frames - since.rx_frames, now.rx_bytes - since.rx_bytes),
        tx=(now.tx_frames - since.tx_frames, now.tx_bytes - since.tx_bytes),
        module=_MODULES.get(plugged.kind, plugged.kind) if plugged else "",
        description=plugged.detail if plugged else "",
    )


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _found(find: Callable[[str], int], name: str) -> int | None:
    if name in (NOBODY, "ANY"):
        return None
    try:
        return find(name)
    except ValueError:
        raise CommandError(errno.EINVAL) from None


def _failed(code: int) -> Outcome:
    return Outcome(serialize_reply(code, _text_of(code)), code)


def _text_of(code: int) -> str:
    return os.strerror(code)
