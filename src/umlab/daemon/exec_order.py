"""What is to run in a guest, as callers describe it."""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from umlab.errors import LocalProtocolError
from umlab.guest.inside.script import command_script, surrounded
from umlab.guest.inside.session import Input, Request

#: Bytes of an order as JSON; it is one message of the API's.
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
        base64: Whether the words of ``argv``, the script, the variables' values and the directory are base64,
            as JSON takes bytes that are no UTF-8; otherwise such bytes are surrogates, as in `os.fsdecode`.
    """

    argv: tuple[str, ...] = ()
    script: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: str | None = None
    input: Input = "none"
    window: tuple[int, int] = (24, 80)
    base64: bool = False

    def encoded(self) -> ExecOrder:
        """Return the same command in base64.

        Raises:
            UnicodeEncodeError: It is no text.
        """
        return self if self.base64 else self._mapped(_encoded, base64=True)

    def decoded(self) -> ExecOrder:
        """Return the same command as it is.

        Raises:
            LocalProtocolError: It is said to be base64 and is not.
        """
        return self._mapped(_decoded, base64=False) if self.base64 else self

    @property
    def text(self) -> str:
        """The command for people."""
        return " ".join(self.argv) if self.script is None else self.script

    def request(self) -> Request:
        """Return the request to the guest's agent.

        Raises:
            LocalProtocolError: There is no command, there are two, or no guest can be told this one.
        """
        if self.base64:
            return self.decoded().request()
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

    def _mapped(self, change: Callable[[str], str], *, base64: bool) -> ExecOrder:
        return dataclasses.replace(
            self,
            argv=tuple(map(change, self.argv)),
            script=None if self.script is None else change(self.script),
            environment={name: change(value) for name, value in self.environment.items()},
            directory=None if self.directory is None else change(self.directory),
            base64=base64,
        )


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "surrogateescape")
    except ValueError:
        raise LocalProtocolError(f"{text[:64]!r} is no base64") from None


#: Rows and columns of a terminal, at most.
_MAX_SIZE = 9999
