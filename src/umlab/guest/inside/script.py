"""Shell scripts that the agent runs in a guest."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from umlab.errors import LocalProtocolError

#: The one that every guest has.
_BOX = "/run/umlab/busybox"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def command_script(
    argv: Sequence[str], *, environment: Mapping[str, str] | None = None, directory: str | None = None
) -> str:
    """Return a script that becomes a program.

    It ends with 127 where there is no such program, or none that interprets it, and 126 where it cannot be
    run, and says so.

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
        lines.append(f"cd {quoted} 2>/dev/null || {_refusal('cannot change to this directory', 126, quoted)}")
    return "\n".join([*lines, script])


def _check(program: str, quoted: str) -> str:
    """Return what says why a program cannot be run, since a shell names the script instead of us."""
    missing = _refusal("no such command in the guest", 127, quoted)
    if "/" not in program:
        return _look_up(quoted, missing)
    return "\n".join(
        [
            f"[ -e {quoted} ] || {missing}",
            f"[ ! -d {quoted} ] || {_refusal('is a directory', 126, quoted)}",
            f"[ -x {quoted} ] || {_refusal('permission denied', 126, quoted)}",
            _check_interpreter(quoted),
        ]
    )


def _look_up(quoted: str, missing: str) -> str:
    """Return what looks for a program in ``PATH``, where a shell's own words are none."""
    # A busybox that has the other programs in it says of one of them that it is itself.
    return f"""umlab_left=$PATH:
while [ "$umlab_left" ]; do
	umlab_at=${{umlab_left%%:*}}
	umlab_at=${{umlab_at:-.}}/{quoted}
	[ ! -f "$umlab_at" ] || [ ! -x "$umlab_at" ] || break
	umlab_left=${{umlab_left#*:}}
done
[ "$umlab_left" ] || [ "$(type {quoted} 2>/dev/null)" = {quoted}' is '{quoted} ] || {missing}"""


def _check_interpreter(quoted: str) -> str:
    """Return what says that a program is a script whose interpreter is not there."""
    missing = _refusal("no interpreter %s in the guest", 127, quoted, '"$umlab_at"')
    # Not every shell reads a number of characters, and none a line of a large program in a short time.
    return f"""read -r -n 2 umlab_at 2>/dev/null <{quoted} ||
	umlab_at=$({_BOX} head -c 2 {quoted} 2>/dev/null)
if [ "$umlab_at" = '#!' ] && read -r umlab_at <{quoted}; then
	umlab_at=${{umlab_at#??}}
	umlab_at=${{umlab_at#"${{umlab_at%%[! 	]*}}"}}
	umlab_at=${{umlab_at%%[ 	]*}}
	[ ! "$umlab_at" ] || [ -e "$umlab_at" ] || {missing}
fi"""


def _refusal(reason: str, status: int, *words: str) -> str:
    return f"{{ printf 'umlab: %s: {reason}\\n' {' '.join(words)} >&2; exit {status}; }}"


def _quoted(word: str) -> str:
    if "\0" in word:
        raise LocalProtocolError(f"{word[:64]!r} has a NUL, which no program can be told")
    return shlex.quote(word)
