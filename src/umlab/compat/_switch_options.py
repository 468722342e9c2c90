"""The command line of ``uml_switch``, read as the original reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from umlab._line_writer import write_now

DEFAULT_CONTROL = "/tmp/uml.ctl"
DEFAULT_DATA = "/tmp/uml.data"


class UsageError(Exception):
    """The command line is not understood."""


@dataclass
class Options:
    """What the command line asks for.

    Attributes:
        program: The name that it was called by, for its messages.
        control: Path of the control socket.
        data: Path of the data socket for v0 guests, if there is one.
        compat: Whether ``-compat-v0`` was given, which changes what is printed.
        hub: Whether to forward everything everywhere.
        tap: The tap device to plug in, if any.
        daemon: Whether to go on in the background.
        control_is_default: Whether nobody named the control socket.
    """

    program: str
    control: str = DEFAULT_CONTROL
    data: str | None = None
    compat: bool = False
    hub: bool = False
    tap: str | None = None
    daemon: bool = False
    control_is_default: bool = True


def parse_options(argv: Sequence[str]) -> Options:
    """Read the command line from left to right as the original does, and say what it says meanwhile.

    After ``-compat-v0`` two words belong to ``-unix``, whatever they are.  Before or without it one does;
    a second one that is no option is the older syntax ``-unix CONTROL DATA``, which the original lost.

    Raises:
        UsageError: A word is unknown or one is missing.
    """
    options = Options(argv[0])
    words = list(argv[1:])

    def argument() -> str:
        if not words:
            raise UsageError
        return words.pop(0)

    while words:
        word = words.pop(0)
        if word == "-unix":
            options.control, options.control_is_default = argument(), False
            if options.compat:
                options.data = argument()
            else:
                older_syntax = bool(words and words[0]) and not words[0].startswith("-")
                options.data = words.pop(0) if older_syntax else None
        elif word == "-tap":
            options.tap = argument()
        elif word == "-hub":
            write_now(1, f"{options.program} will be a hub instead of a switch")
            options.hub = True
        elif word == "-compat-v0":
            write_now(1, "Control protocol 0 compatibility")
            options.compat = True
            options.data = options.data or DEFAULT_DATA
        elif word == "-daemon":
            options.daemon = True
        else:
            raise UsageError
    return options


def usage(program: str) -> str:
    """Return the original's usage text."""
    return (
        f"Usage : {program} [ -unix control-socket ] [ -hub ] [ -tap tap-device ]\n"
        f"or : {program} -compat-v0 [ -unix control-socket data-socket ] [ -hub ] [ -tap tap-device ]"
    )
