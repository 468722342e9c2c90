"""What the console's shell knows of its commands: help, examples, files and devices, what is deadly."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from umlab.mconsole.sysrq import KEYS, kills


@dataclass(frozen=True, slots=True)
class Verb:
    """A command.

    Attributes:
        usage: How it is written.
        does: What it does, in one line.
        examples: Lines that have it.
        local: Whether the shell does it, and not the guest.
    """

    usage: str
    does: str
    examples: tuple[str, ...]
    local: bool = False

    @property
    def name(self) -> str:
        """The first word."""
        return self.usage.split()[0]


_ALL = (
    Verb("version", "show the kernel's name, release, build and machine", ("version", "@all version")),
    Verb(
        "proc FILE",
        "show a file of the kernel's /proc, one that needs no process",
        ("proc loadavg", "@web* proc meminfo"),
    ),
    Verb(
        "config DEVICE[=VALUE]",
        "show a device, or plug one in",
        (
            "config ubda",
            "config eth1=daemon,,unix,/tmp/lan.ctl",
            "config vec1:transport=bess,dst=/tmp/lan.bess",
        ),
    ),
    Verb("remove DEVICE", "unplug a device that is not in use", ("remove eth1",)),
    Verb("sysrq LETTER", "press a system request key; `sysrq 8` first shows all it prints", ("sysrq m",)),
    Verb("stack PID", "show the kernel stack of a process", ("stack 1",)),
    Verb(
        "log TEXT | log -f FILE",
        "put text, or a file's, into the guest's kernel log",
        ("log test 4 begins", "@all log -f notes.txt"),
    ),
    Verb("stop", "freeze the guest until `go`; its console goes on answering", ("stop",)),
    Verb("go", "let a frozen guest go on", ("go",)),
    Verb("cad", "press Ctrl-Alt-Del: init shuts down, or the kernel reboots", ("cad",)),
    Verb("halt", "end the guest at once, without syncing its disks", ("halt",)),
    Verb("reboot", "restart the guest at once, without syncing its disks", ("reboot",)),
    Verb(
        "help [COMMAND]",
        "show this; `@NAME help` asks a guest for its own",
        ("help", "help proc"),
        local=True,
    ),
    Verb("guests", "list the guests that can be asked", ("guests",), local=True),
    Verb("switch NAME", "talk to another guest from now on", ("switch ring/left",), local=True),
    Verb(
        "mconsole-version",
        "show the version of the protocol that is spoken",
        ("mconsole-version",),
        local=True,
    ),
    Verb("quit", "leave, as exit and Ctrl-D do", ("quit",), local=True),
    Verb("exit", "leave", ("exit",), local=True),
)
VERBS = {verb.name: verb for verb in _ALL}

SELECTORS = (
    ("@all COMMAND", "ask every guest"),
    ("@web*,db COMMAND", "ask those whose names match"),
)

#: Files of ``/proc`` that a kernel can read for its console, and what they tell.
PROC_FILES = {
    "buddyinfo": "free memory by the size of its pieces",
    "cmdline": "the kernel's command line",
    "cpuinfo": "the processor",
    "devices": "drivers by major number",
    "diskstats": "what the disks did",
    "filesystems": "kinds of file system",
    "interrupts": "interrupts since boot",
    "iomem": "what lies where in memory",
    "loadavg": "load, processes that run, the latest pid",
    "locks": "file locks",
    "meminfo": "memory",
    "mounts": "what is mounted",
    "partitions": "disks and partitions",
    "softirqs": "soft interrupts since boot",
    "stat": "processor time, interrupts, processes since boot",
    "sys/kernel/hostname": "the host name",
    "sys/kernel/osrelease": "the kernel's release",
    "sys/kernel/printk": "the console's log level first",
    "timer_list": "timers",
    "uptime": "seconds since boot, seconds idle",
    "version": "the kernel and its compiler",
    "vmstat": "what memory management did",
    "zoneinfo": "memory by zone",
}

#: Devices that most kernels can have, and what they are.
DEVICES = {
    **{f"eth{number}": "a NIC, by daemon, tap or the like" for number in range(2)},
    **{f"vec{number}": "a NIC, by a vector transport" for number in range(2)},
    **{f"ubd{letter}": "a disk" for letter in "abcd"},
    **{f"con{number}": "a virtual console" for number in range(3)},
    **{f"ssl{number}": "a serial line" for number in range(2)},
    "mem": "memory: -64M takes away, +64M gives back",
}

#: The kernel looks at the beginning of a command only.
_DEADLY = {name: VERBS[name].does for name in ("halt", "reboot", "cad")}

#: The disk that every kernel has by default.  Source: Linux arch/um/drivers/ubd_kern.c ``ubd0_init``.
_FIRST_DISK = re.compile(r"remove\s*ubd[a0]")


def danger(text: str, releases: Iterable[str] = ("",)) -> str | None:
    """Return what a command is known to do to guests or their programs, ``None`` for what is harmless.

    Args:
        text: The command.
        releases: The kernels of the guests that it is for, ``""`` for one that is not known.
    """
    for verb, does in _DEADLY.items():
        if text.startswith(verb):
            return does
    if _FIRST_DISK.match(text):
        return "unplug the first disk; a kernel that was started without one panics"
    if text.startswith("sysrq"):
        letter = text.removeprefix("sysrq").lstrip()[:1]
        if any(kills(letter, release) for release in releases):
            return KEYS[letter].does
    return None


def help_lines(name: str = "") -> list[str]:
    """Return the help of a command, or of all.

    Args:
        name: The command's; empty for all.

    Raises:
        KeyError: There is no such command.
    """
    if name:
        verb = VERBS[name]
        return [verb.usage, f"    {verb.does}", "", "Examples:", *(f"    {line}" for line in verb.examples)]
    rows = [(verb.usage, verb.does) for verb in _ALL] + list(SELECTORS)
    width = max(len(usage) for usage, _ in rows)
    return [f"{usage:{width}}  {does}" for usage, does in rows]
