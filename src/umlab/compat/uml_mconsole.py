"""``uml_mconsole``: the console client of uml-utilities, replaced.

Callers read its output, its status and its prompt, so those are the original's; what differs on
purpose is listed in docs/reference/uml_mconsole-differences.md.  Scripts start it once per command:
it imports nothing that it can do without, and a test bans the expensive modules.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal itself imports enum
import os
import sys

from umlab.compat._mconsole_shell import Shell
from umlab.errors import MconsoleUnreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["main"]

USAGE = b"Usage : uml_mconsole socket-name [command]\n"


def main(arguments: list[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: The words after the program's name, by default those of this process.

    Returns:
        The exit status: 1 for an error of ours or of the guest without a number, otherwise the guest's
        error number modulo 256, as the original; 0 from a prompt or a pipe whose commands were all answered.
    """
    words = sys.argv[1:] if arguments is None else arguments
    # A reader that leaves, or the user's interrupt, ends this program as it ends the original.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    if not words:
        sys.stderr.buffer.write(USAGE)
        return 1
    shell = Shell(sys.stdout.buffer, sys.stderr.buffer, escape=os.isatty(1))
    try:
        shell.switch(words[0])
    except MconsoleUnreachable as error:
        shell.complain(str(error))
        if len(words) > 1:
            return 1
    if len(words) > 1:
        return shell.run(os.fsencode(" ".join(words[1:])))
    return _converse(shell, _typed(shell) if os.isatty(0) else _piped(shell))


def _converse(shell: Shell, lines: Iterator[bytes]) -> int:
    for line in lines:
        shell.run(line)
        if shell.quitting:
            break
    else:
        shell.say(b"\n")
    return 1 if shell.unanswered and not os.isatty(0) else 0


def _piped(shell: Shell) -> Iterator[bytes]:
    """Yield the lines of standard input, each shown after the prompt as the original's readline shows it."""
    while True:
        shell.say(shell.prompt)
        line = sys.stdin.buffer.readline()
        if not line:
            return
        line = line.removesuffix(b"\n").removesuffix(b"\r")
        shell.say(line + b"\n")
        yield line


def _typed(shell: Shell) -> Iterator[bytes]:
    """Yield what the user types, with line editing and history where Python has readline."""
    try:
        import readline  # noqa: F401 - its import gives input() line editing
    except ImportError:
        shell.complain("this Python has no readline: lines cannot be edited")
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="surrogateescape")
    while True:
        # While readline has the terminal, an interrupt must pass through Python, which restores the modes.
        _signal.signal(_signal.SIGINT, _signal.default_int_handler)
        try:
            line = input(os.fsdecode(shell.prompt))
        except EOFError:
            return
        except KeyboardInterrupt:
            shell.say(b"\n")
            _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
            os.kill(os.getpid(), _signal.SIGINT)
            return
        _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
        yield line.encode("utf-8", "surrogateescape")
