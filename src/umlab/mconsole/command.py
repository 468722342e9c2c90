"""The commands of the console: what each sends, how long it may take, what its answer means.

Both clients take their methods from here, see `umlab.mconsole.sync` and `umlab.mconsole.aio`.

Source: Linux arch/um/drivers/mconsole_kern.c.
"""

from __future__ import annotations

import os

from umlab.errors import LocalProtocolError, MconsoleError, MconsoleTimeout
from umlab.mconsole.session import Answer, Silence

__all__ = [
    "LONG_TIMEOUT",
    "QUICK_TIMEOUT",
    "Command",
    "cad",
    "config_get",
    "config_set",
    "go",
    "halt",
    "help",
    "log",
    "proc",
    "raw",
    "reboot",
    "remove",
    "stack",
    "stop",
    "sysrq",
    "timeout_of",
    "version",
]

QUICK_TIMEOUT = 5.0
LONG_TIMEOUT = 30.0
"""Seconds for the commands whose answers grow with the guest."""

LONG_VERBS = (b"proc", b"sysrq", b"stack")


class Command:
    """One request.

    Attributes:
        text: What is sent.
        timeout: Seconds in which the whole answer must arrive.
        prefix: Text that the guest puts before the answer proper, taken off.
    """

    __slots__ = ("prefix", "text", "timeout")

    def __init__(self, text: str, timeout: float | None = None, prefix: str = "") -> None:
        self.text = os.fsencode(text)
        self.timeout = timeout_of(self.text) if timeout is None else timeout
        self.prefix = prefix

    def __repr__(self) -> str:
        return f"Command(text={self.text!r}, timeout={self.timeout!r})"

    def result(self, event: Answer | Silence, umid: str) -> str:
        """Return the answer's text; bytes that are not UTF-8 appear as ``\\xNN``.

        Args:
            event: What the session said.
            umid: The guest's name, for errors.

        Raises:
            MconsoleError: The guest answered with an error.
            MconsoleTimeout: It did not answer in time.
        """
        output = event.text.decode("utf-8", "backslashreplace")
        if isinstance(event, Silence):
            raise MconsoleTimeout(umid, self.display, output)
        if event.err:
            raise MconsoleError(umid, self.display, output, event.err)
        return output.removeprefix(self.prefix)

    @property
    def display(self) -> str:
        """The text as errors show it."""
        return self.text.decode("utf-8", "backslashreplace")


def timeout_of(text: bytes) -> float:
    """Return the time limit, in seconds, that suits a command's text."""
    return LONG_TIMEOUT if text.startswith(LONG_VERBS) else QUICK_TIMEOUT


def version() -> Command:
    """Ask for system, host name, release, build and machine of the kernel, on one line."""
    return Command("version")


def help() -> Command:
    """Ask for the kernel's list of commands."""
    return Command("help")


def halt() -> Command:
    """Stop the guest at once, without telling its programs and without syncing its disks."""
    return Command("halt")


def reboot() -> Command:
    """Restart the guest at once, in the same process; the console is away for a moment."""
    return Command("reboot")


def cad() -> Command:
    """Press control-alt-delete: init shuts down in order, if there is an init that does."""
    return Command("cad")


def stop() -> Command:
    """Freeze the guest until `go`; the console goes on answering."""
    return Command("stop")


def go() -> Command:
    """Let a stopped guest go on; an error if it is not stopped."""
    return Command("go")


def config_set(device: str, value: str) -> Command:
    """Plug a device in, or change it.

    Args:
        device: Such as ``eth0``, ``vec0``, ``ubd3``, ``con4`` or ``mem``.
        value: As after the sign on the kernel's command line.  Relative paths are the guest's process's.
    """
    # Only the vector driver refuses "=": its own value is a list of them.
    return Command(f"config {device}{':' if device.startswith('vec') else '='}{value}")


def config_get(device: str) -> Command:
    """Ask how a device is configured; network devices do not say.

    Args:
        device: Such as ``ubd3`` or ``con1``.

    Raises:
        LocalProtocolError: The name has a ``=``, with which the guest would set instead.
    """
    if "=" in device:
        raise LocalProtocolError(f"'{device}' is not the name of a device")
    return Command(f"config {device}")


def remove(device: str) -> Command:
    """Unplug a device, which must not be in use: an interface down, a disk not mounted."""
    return Command(f"remove {device}")


def sysrq(key: str = "") -> Command:
    """Press a system request key and read what the kernel prints.

    The guest's console log level filters the text; ``8`` shows everything.  ``t`` kills a 6.1 kernel.

    Args:
        key: One character; none asks for the list.
    """
    return Command(f"sysrq {key}".rstrip())


def log(text: str) -> Command:
    """Put a line into the guest's kernel log.

    Args:
        text: At most 506 bytes; its line's end is added, without which the kernel keeps it back.
    """
    return Command(f"log {text.removesuffix(chr(10))}\n")


def proc(path: str) -> Command:
    """Read a file of the guest kernel's own procfs.

    Some need a kernel that can read them without a process: ``<pid>/status`` or ``net/dev`` do not work.

    Args:
        path: Relative to ``/proc``, such as ``uptime``.
    """
    return Command(f"proc {path}", prefix="\n")


def stack(pid: int) -> Command:
    """Ask for the kernel stack of a process of the guest; the log level filters it as for `sysrq`."""
    return Command(f"stack {pid}")


def raw(text: str, timeout: float | None = None) -> Command:
    """Send any text.

    Args:
        text: The command, at most 511 bytes.
        timeout: Seconds for the whole answer; by default what suits its first word.
    """
    return Command(text, timeout)
