"""Shell scripts that the agent runs in a guest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from umlab.errors import LocalProtocolError

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def command_script(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, directory: str | None = None
) -> str:
    """Return a script that becomes a program.

    It ends with 127 where there is no such program and 126 where it cannot be run, as a shell says.

    Args:
        argv: The program and its arguments; a program without a slash is looked for in ``PATH``.
        environment: Variables to set; the agent's own are ``PATH``, ``HOME`` and ``TERM``.
        directory: Where it runs, absolute; ``/root`` unless given, ``/`` where there is none.

    Raises:
        LocalProtocolError: A word has a NUL, a variable's name is none, or the directory is not absolute.
    """
    if not argv or not argv[0]:
        raise LocalProtocolError("there is no command to run")
    return surrounded(
        "exec " + " ".join(map(_quoted, argv)) + "\n", environment=environment, directory=directory
    )


def surrounded(
    script: str, *, environment: Mapping[str, str] | None = None, directory: str | None = None
) -> str:
    """Return a script in its surroundings; takes and raises what :func:`command_script` does.

    Args:
        script: What runs there.
        environment: Variables to set.
        directory: Where it runs.
    """
    lines = []
    for name, value in (environment or {}).items():
        if not _VARIABLE.fullmatch(name):
            raise LocalProtocolError(f"{name[:64]!r} is not the name of a variable")
        lines.append(f"export {name}={_quoted(value)}")
    if directory is None:
        lines.append("cd /root 2>/dev/null || cd /")
    elif not PurePosixPath(directory).is_absolute():
        raise LocalProtocolError(f"directory {directory[:200]!r} is not an absolute path")
    else:
        # "cd" says itself why it cannot.
        lines.append(f"cd {_quoted(directory)} || exit 126")
    return "\n".join([*lines, script])


def _quoted(word: str) -> str:
    if "\0" in word:
        raise LocalProtocolError(f"{word[:64]!r} has a NUL, which no program can be told")
    return shlex.quote(word)
