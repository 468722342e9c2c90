"""What is to run in a guest, as callers describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from umlab.errors import LocalProtocolError
from umlab.guest.inside.script import command_script, surrounded
from umlab.guest.inside.session import Input, Request

#: Bytes of an order as JSON.
MAX_ORDER = 120 * 1024
#: Bytes of input that the daemon takes before the guest has.
INPUT_WINDOW = 8 << 20


@dataclass(frozen=True, slots=True)
class ExecOrder:
    """A command; it runs as the guest's root.

    Attributes:
        argv: A program and its arguments, or
        script: a script for the guest's ``/bin/sh`` instead.
        environment: Variables that it has beside the guest's own.
        directory: Where it runs, absolute; ``/root`` unless given, ``/`` where there is none.
        input: Where its input comes from: ``none``, ``pipe`` (what the caller sends) or ``tty`` (a terminal,
            where its output and errors go as well).
        window: Rows and columns of the terminal.
    """

    argv: tuple[str, ...] = ()
    script: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    input: Input = "none"
    window: tuple[int, int] = (24, 80)

    @property
    def text(self) -> str:
        """The command for people."""
        return " ".join(self.argv) if self.script is None else self.script

    def request(self) -> Request:
        """Return the request to the guest's agent.

        Raises:
            LocalProtocolError: There is no command, there are two, or no guest can be told this one.
        """
        if self.script is None:
            script = command_script(self.argv, environment=self.environment, directory=self.directory)
        elif self.argv:
            raise LocalProtocolError("a command is either argv or a script")
        else:
            script = surrounded(self.script, environment=self.environment, directory=self.directory)
        rows, columns = self.window
        if not (1 <= rows <= _MAX_SIZE and 1 <= columns <= _MAX_SIZE):
            raise LocalProtocolError(f"a terminal has 1 to {_MAX_SIZE} rows and columns")
        return Request(script, self.input, self.window)


#: Rows and columns of a terminal, at most.
_MAX_SIZE = 9999
