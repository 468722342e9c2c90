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
    words = [_quoted(word) for word in argv]
    script = f"{_check(argv[0], words[0])}\nexec {' '.join(words)}\n"
    return surrounded(script, environment=environment, directory=directory)


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
        quoted = _quoted(directory)
        lines.append(f"cd {quoted} 2>/dev/null || {_refusal(quoted, 'cannot change to this directory', 126)}")
    return "\n".join([*lines, script])


def _check(program: str, quoted: str) -> str:
    """Return what says why a program cannot be run, since a shell names the script instead of us."""
    if "/" not in program:
        return f"command -v {quoted} >/dev/null 2>&1 || {_refusal(quoted, 'not found', 127)}"
    return "\n".join(
        [
            f"[ -e {quoted} ] || {_refusal(quoted, 'not found', 127)}",
            f"[ ! -d {quoted} ] || {_refusal(quoted, 'is a directory', 126)}",
            f"[ -x {quoted} ] || {_refusal(quoted, 'permission denied', 126)}",
        ]
    )


def _refusal(quoted: str, reason: str, status: int) -> str:
    return f"{{ printf 'umlab: %s: {reason}\\n' {quoted} >&2; exit {status}; }}"


def _quoted(word: str) -> str:
    if "\0" in word:
        raise LocalProtocolError(f"{word[:64]!r} has a NUL, which no program can be told")
    return shlex.quote(word)
