"""What ``uml_mconsole`` does with one line: commands of its own, or a request to the guest.

Bytes in, bytes out: neither a command line nor a guest need to be UTF-8.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum
import os

from umlab.errors import LocalProtocolError, MconsoleProtocolError, MconsoleUnreachable
from umlab.mconsole.command import timeout_of
from umlab.mconsole.endpoint import open_console
from umlab.mconsole.line import LOG_PIECE, absolute_disks, log_pieces, log_requests
from umlab.mconsole.locate import pid_file
from umlab.mconsole.session import Silence
from umlab.mconsole.sync import Mconsole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

__all__ = ["Shell"]

NO_GUEST = "[None]"
PROMPT_NAME = 11
"""Bytes of a name that the original's prompt shows."""

BLANK = b" \t"
FAILED = 1
"""Exit status of an error that has no number."""

LOCAL_HELP = b"""\
Commands of this program:
    quit - leave
    switch <name> - talk to another guest
    log -f <file> - put a file's lines into the guest's kernel log
    mconsole-version - version of the protocol that this program speaks
    int - send the guest's process an interrupt signal
"""


class Shell:
    """The present guest, and how lines are run.

    Attributes:
        quitting: Whether ``quit`` was asked for.
        unanswered: Whether a command failed to reach a guest or to get its answer.

    Args:
        out: Standard output.
        err: Standard error.
        escape: Whether ``out`` is a terminal, which must not obey what a guest sends.
    """

    def __init__(self, out: BinaryIO, err: BinaryIO, *, escape: bool) -> None:
        self.quitting = False
        self.unanswered = False
        self._out = out
        self._err = err
        self._escape = escape
        self._guest: Mconsole | None = None
        self._local = {
            b"quit": self._quit,
            b"switch": self._switch,
            b"help": self._help,
            b"log": self._log,
            b"int": self._interrupt,
            b"umlfs": self._umlfs,
            b"mconsole-version": self._client_version,
        }

    @property
    def prompt(self) -> bytes:
        """The prompt, with the guest's name, cut as the original cuts it."""
        name = NO_GUEST if self._guest is None else self._guest.umid
        return b"(%s) " % self._fit(os.fsencode(name)[:PROMPT_NAME])

    def say(self, data: bytes) -> None:
        """Write to standard output at once."""
        self._out.write(data)
        self._out.flush()

    def complain(self, text: str) -> None:
        """Write a line of ours to standard error."""
        self._err.write(os.fsencode(text) + b"\n")
        self._err.flush()

    def switch(self, name: str) -> None:
        """Talk to another guest from now on.

        Raises:
            MconsoleUnreachable: Nobody listens there; the present guest stays.
        """
        guest = Mconsole.find(name)
        open_console(guest.path, name, "").close()
        self._guest = guest

    def run(self, line: bytes) -> int:
        """Run one line and show what comes of it.

        Args:
            line: The command; blanks at its end do not count.

        Returns:
            The exit status that a one-shot call has for it.
        """
        line = line.rstrip()
        words = line.split(None, 1)
        word = words[0] if words and line.startswith(words[0]) else b""
        local = self._local.get(word)
        if local is not None:
            return local(line[len(word) :].lstrip(BLANK))
        return self._ask(absolute_disks(line, self._absolute))

    def _ask(self, text: bytes) -> int:
        """Send one request, show the answer, return its exit status."""
        if self._guest is None:
            self.unanswered = True
            self.complain("no guest; name one with: switch <name>")
            return FAILED
        timeout = timeout_of(text)
        try:
            event = self._guest.exchange(text, timeout)
        except MconsoleUnreachable as error:
            self.unanswered = True
            self.complain(str(error))
            return FAILED
        except MconsoleProtocolError as error:
            self.complain(str(error))
            return FAILED
        except LocalProtocolError as error:
            self.complain(f"guest {self._guest.umid}: {error}")
            return FAILED
        if isinstance(event, Silence):
            self.unanswered = True
            if event.text:
                self.say(b"ERR " + self._fit(event.text) + b"\n")
            waited = f"did not answer within {timeout:g} seconds"
            self.complain(f"guest {self._guest.umid} {waited}; it may be hung or stopped")
            return FAILED
        self.say((b"ERR " if event.err else b"OK ") + self._fit(event.text) + b"\n")
        # A number whose low byte is 0 would look like success.
        return event.err and (event.err & 0xFF or FAILED)

    def _fit(self, data: bytes) -> bytes:
        """Return a guest's bytes as standard output may have them."""
        if not self._escape:
            return data
        from umlab.mconsole.text import escape_controls

        return escape_controls(data).encode()

    def _quit(self, rest: bytes) -> int:
        self.quitting = True
        return 0

    def _switch(self, rest: bytes) -> int:
        name = os.fsdecode(rest.rstrip(BLANK))
        try:
            self.switch(name)
        except MconsoleUnreachable as error:
            self.complain(str(error))
            return FAILED
        self.say(b"Switched to '%s'\n" % self._fit(rest.rstrip(BLANK)))
        return 0

    def _help(self, rest: bytes) -> int:
        status = self._ask(b"help")
        self.say(LOCAL_HELP)
        return status

    def _client_version(self, rest: bytes) -> int:
        self.say(b"uml_mconsole client version 2\n")
        return 0

    def _umlfs(self, rest: bytes) -> int:
        self.complain("umlfs is not supported: it needs a kernel patch that was never merged")
        return FAILED

    def _log(self, rest: bytes) -> int:
        """Send text in pieces, and a line's end of its own when the last piece has none."""
        if not rest.startswith(b"-f"):
            return self._log_pieces(log_pieces(rest))
        try:
            with open(rest[2:].lstrip(BLANK), "rb", buffering=0) as file:
                return self._log_pieces(iter(lambda: file.read(LOG_PIECE), b""))
        except OSError as error:
            self.complain(f"opening file: {error.strerror}")
            return FAILED

    def _log_pieces(self, pieces: Iterable[bytes]) -> int:
        for request in log_requests(pieces):
            if status := self._ask(request):
                return status
        return 0

    def _interrupt(self, rest: bytes) -> int:
        """Send SIGINT to the guest's main process, after making sure that it is the guest's."""
        if self._guest is None:
            self.complain("no guest; name one with: switch <name>")
            return FAILED
        try:
            # While the guest lives it holds the socket, and the pid beside it is its own, not a successor's.
            open_console(self._guest.path, self._guest.umid, "int").close()
            with open(pid_file(self._guest.path), "rb") as file:
                pid = int(file.read(32))
            # 0 and negative numbers name process groups, ours among them.
            if pid <= 1:
                raise ValueError(pid)
            os.kill(pid, _signal.SIGINT)
        except MconsoleUnreachable as error:
            self.complain(str(error))
        except ProcessLookupError:
            self.complain(f"guest {self._guest.umid} does not run")
        except PermissionError:
            self.complain(f"guest {self._guest.umid} belongs to another user")
        except (OSError, ValueError, OverflowError):
            self.say(b"Cannot determine the PID of your UML session, not sending signal.\n")
        else:
            return 0
        return FAILED

    def _absolute(self, name: bytes) -> bytes:
        directory, base = os.path.split(name)
        try:
            return os.path.join(os.path.realpath(directory or b".", strict=True), base)
        except OSError as error:
            self.complain(f"absolutize : Can't cd to '{os.fsdecode(directory)}', {error.strerror}")
            return name
