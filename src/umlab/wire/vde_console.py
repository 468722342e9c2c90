"""VDE's management console: one command in each read, and a reply that ends with a number and a prompt.

Data of a reply stands between ``0000 DATA END WITH '.'`` and a line with a full stop alone; then comes
``1NNN TEXT``, where NNN is an error number of the system and 0 is success.

Source: exchanges with vde_switch 2.3.2, unixterm, unixcmd and vdeterm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

#: Bytes of a command: what one read takes.
MAX_COMMAND = 128
#: The version whose words are spoken.
VERSION = "2.3.2"
#: Ends every reply; clients wait for its last two characters.
PROMPT = b"\nvde$ "
#: Stands for a port's untagged VLAN where it has none.
NO_VLAN = 4095
END_OF_SESSION = b"9999 END OF SESSION"

_MENU = "============"


@dataclass(frozen=True, slots=True)
class Command:
    """A command, or the head of a menu, as the help shows it.

    Attributes:
        path: Its name, such as ``port/print``.
        help: What it does, in a line.
        syntax: Its argument; of a menu, a rule.
    """

    path: str
    help: str
    syntax: str = ""


def menu(path: str, name: str) -> Command:
    """Return the head of a menu."""
    return Command(path, f"{name} MENU", _MENU)


@dataclass(frozen=True, slots=True)
class ConsolePort:
    """What is shown of a port.

    Attributes:
        port_no: Its number.
        untagged: The VLAN of its frames without tags, or ``NO_VLAN``.
        allocatable: Whether a client that asks for no port may get it.
        current_user: Who has it.
        user: The only user who may have it.
        group: The only group whose members may have it.
        rx: Frames and bytes that came in.
        tx: Frames and bytes that went out.
        module: What kind of thing is plugged in; empty where nothing is.
        description: What that says of itself.
    """

    port_no: int
    untagged: int
    allocatable: bool
    current_user: str
    user: str
    group: str
    rx: tuple[int, int]
    tx: tuple[int, int]
    module: str
    description: str


def banner(program: str) -> bytes:
    """Return what a console says first: the version that it speaks, which program it is, the prompt."""
    return title(program).encode() + PROMPT


def title(program: str) -> str:
    """Return the two lines of the version, and the program behind it."""
    return f"VDE switch V.{VERSION}\n({program})\n"


def read_command(text: str) -> str:
    """Return the command in what a read gave, or in a line of a script; empty where there is none.

    It ends with the line, or with a NUL; what comes behind is nobody's.  A comment begins with ``#``.
    """
    command = text.split("\n", 1)[0].split("\0", 1)[0].strip(" \t\r")
    return "" if command.startswith("#") else command


def find_command(line: str, paths: Iterable[str]) -> tuple[str, str] | None:
    """Return the first path that a line begins with, and the argument behind it; ``None`` for no path.

    Nothing has to stand between the two, so a path that another one begins with must come behind it.
    """
    for path in paths:
        if line.startswith(path):
            return path, line[len(path) :].strip(" \t")
    return None


def serialize_reply(code: int, text: str, data: str | None = None) -> bytes:
    """Return a reply without the prompt.

    Args:
        code: The error number; 0 for success.
        text: What that means.
        data: Whole lines; ``None`` where the command has no data, on success or not.
    """
    shown = "" if data is None else f"0000 DATA END WITH '.'\n{data}.\n"
    return f"{shown}{1000 + code} {text}\n".encode("utf-8", "surrogateescape")


def format_help(commands: Iterable[Command], start: str) -> str:
    """Return the help for the commands whose path begins in a certain way; vdeterm completes by it."""
    rows = [("COMMAND PATH", "SYNTAX", "HELP"), ("------------", "--------------", "------------")]
    rows += [(each.path, each.syntax, each.help) for each in commands if each.path.startswith(start)]
    return "".join(f"{path:<18} {syntax:<15} {text}\n" for path, syntax, text in rows)


def format_port(port: ConsolePort) -> str:
    """Return the lines about a port.  Its endpoint's number is the port's own: it has one at most."""
    state = "ACTIVE" if port.module else "INACTIVE"
    pool = "" if port.allocatable else "NOT "
    lines = [
        f"Port {port.port_no:04d} untagged_vlan={port.untagged:04d} {state} - {pool}Unnamed Allocatable",
        f" Current User: {port.current_user} Access Control: (User: {port.user} - Group: {port.group})",
        f" IN:  pkts {port.rx[0]:10d}          bytes {port.rx[1]:20d}",
        f" OUT: pkts {port.tx[0]:10d}          bytes {port.tx[1]:20d}",
    ]
    if port.module:
        lines.append(f"  -- endpoint ID {port.port_no:04d} module {port.module:<12}: {port.description}")
    return "".join(f"{line}\n" for line in lines)


def format_vlan(vlan: int) -> str:
    """Return the line above the ports of a VLAN."""
    return f"VLAN {vlan:04d}\n"


def format_vlan_port(port_no: int, *, tagged: bool, active: bool) -> str:
    """Return the line about a port of a VLAN."""
    status = "Forwarding" if active else "Learning"
    return f" -- Port {port_no:04d} tagged={tagged:d} active={active:d} status={status}\n"


def format_station(mac: bytes, vlan: int, port_no: int, age: int) -> str:
    """Return the line about a learnt address.

    Args:
        mac: 6 bytes.
        vlan: Where it was last seen,
        port_no: and on which port.
        age: Seconds since then.
    """
    # The original has its bucket there; we have none.
    return f"Hash: 0000 Addr: {mac.hex(':')} VLAN {vlan:04d} to port: {port_no:03d}  age {age} secs\n"
