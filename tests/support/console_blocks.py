"""Runs the commands of a document as its reader would, and compares what they print.

A document shows commands in fenced blocks of the language ``console``::

    ```console
    $ umlab switch ls
    office  2 ports, up ...
    ```

Every line that begins with ``$ `` is a command; it goes on in the next line after a backslash, and in
lines that begin with ``> ``.  All commands of a document run in one shell, in order, in an empty
directory, so ``cd``, variables and ``&`` work.  Each must have status 0.  Where output is shown, the
command must print it; ``...`` stands for anything, also for any number of lines.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support.deadline import deadline, scaled, wait_until
from support.require import ROOT

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+) *(?P<language>\w*)")
COMMAND_TIMEOUT = 120

#: What stands in front of a document's commands.  The reader's checkout is this one; and a document
#: that tells to run the tests must not run the tests that run it.
PRELUDE = """\
make() {{
    case "$1" in
        test*) echo "(these tests are running already)" ;;
        *) command make --no-print-directory -C {root} "$@" ;;
    esac
}}
"""


@dataclass(frozen=True)
class Command:
    """One command of a document.

    Attributes:
        line: Where it begins, from 1.
        text: What the shell gets; may have several lines.
        output: The output that the document shows, ``None`` where it shows none.
    """

    line: int
    text: str
    output: str | None


class DocumentError(AssertionError):
    """A document's command does not do what the document says."""


def parse_commands(text: str) -> list[Command]:
    """Return a document's commands in order.

    Raises:
        DocumentError: A console block does not begin with a command, or never ends; or commands stand
            in a block of another language, where nobody would run them.
    """
    commands: list[Command] = []
    for start, language, lines in _blocks(text):
        if language == "console":
            commands += _parse_block(start, lines)
        elif language in ("sh", "bash", "shell") or any(line.startswith("$ ") for line in lines):
            raise DocumentError(f"line {start}: commands belong in a console block, where they are tested")
    return commands


def run_document(text: str, directory: Path) -> int:
    """Run a document's commands in one shell.

    Args:
        text: The document.
        directory: Where the shell starts.

    Returns:
        How many commands were run.

    Raises:
        DocumentError: A command failed, took too long, or printed something else than is shown.
    """
    commands = parse_commands(text)
    with _Shell(directory) as shell:
        for command in commands:
            output, status = shell.run(command)
            if status != 0:
                raise DocumentError(f"line {command.line}: status {status}: $ {command.text}\n{output}")
            if command.output is not None and not output_matches(command.output, output):
                raise DocumentError(
                    f"line {command.line}: $ {command.text}\nshown:\n{command.output}\nprinted:\n{output}"
                )
    return len(commands)


def output_matches(shown: str, printed: str) -> bool:
    """Compare output with what a document shows, where ``...`` stands for anything."""

    def lines(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    pattern = ".*".join(re.escape(part) for part in lines(shown).split("..."))
    return re.fullmatch(pattern, lines(printed), re.DOTALL) is not None


def _blocks(text: str) -> Iterator[tuple[int, str, list[str]]]:
    lines = enumerate(text.splitlines(), 1)
    for start, line in lines:
        if not (opened := FENCE.match(line)):
            continue
        body = []
        for _, inner in lines:
            if inner.strip() == opened["fence"]:
                break
            body.append(inner.removeprefix(opened["indent"]))
        else:
            raise DocumentError(f"line {start}: the block never ends")
        yield start, opened["language"], body


def _parse_block(start: int, lines: list[str]) -> Iterator[Command]:
    numbered = list(enumerate(lines, start + 1))
    while numbered:
        line, first = numbered.pop(0)
        if not first.startswith("$ "):
            raise DocumentError(f"line {line}: a console block begins with a command: '$ '")
        text = [first.removeprefix("$ ")]
        while numbered and (text[-1].endswith("\\") or numbered[0][1].startswith("> ")):
            text.append(numbered.pop(0)[1].removeprefix("> "))
        output = []
        while numbered and not numbered[0][1].startswith("$ "):
            output.append(numbered.pop(0)[1])
        yield Command(line, "\n".join(text), "\n".join(output) if output else None)


class _Shell:
    """One bash that gets command after command; the end of each is a line that no command prints."""

    def __init__(self, directory: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        # The reader sees no colours in a file, and his programs are those of this checkout.
        environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment |= {"NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}
        # Images and kernels that are here are none of the reader's.
        environment["XDG_DATA_HOME"] = str(directory / ".data")
        self._mark = f"end-of-command-{uuid.uuid4()}"
        self._process = subprocess.Popen(
            ["bash", "--norc", "--noprofile"],
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._send(PRELUDE.format(root=ROOT))

    def __enter__(self) -> _Shell:
        return self

    def __exit__(self, *_: object) -> None:
        # What a document leaves running in the background is asked to end, as a closed terminal would.
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.poll()
            with contextlib.suppress(TimeoutError):
                wait_until(self._group_is_empty, 5, "the document's processes end")
                break
        self._process.communicate()

    def _group_is_empty(self) -> bool:
        self._process.poll()
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return True
        return False

    def _send(self, text: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(text.encode())
            self._process.stdin.flush()

    def run(self, command: Command) -> tuple[str, int]:
        """Run one command and return its output and status."""
        assert self._process.stdout is not None
        # A command reads no commands: its input is empty, as in a terminal where nobody types.
        self._send(f"{{ {command.text}\n}} </dev/null\nprintf '\\n%s %s\\n' {self._mark} $?\n")
        pattern = re.compile(rf"\n?{self._mark} (\d+)\n".encode())
        end = deadline(COMMAND_TIMEOUT)
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not (found := pattern.search(received)):
                if not selector.select(max(0, end - deadline(0))):
                    raise DocumentError(
                        f"line {command.line}: not finished after {scaled(COMMAND_TIMEOUT):g} s: "
                        f"$ {command.text}\n{received.decode(errors='replace')}"
                    )
                chunk = os.read(self._process.stdout.fileno(), 65536)
                if not chunk:
                    raise DocumentError(f"line {command.line}: ended the shell: $ {command.text}")
                received += chunk
        return received[: found.start()].decode(errors="replace"), int(found[1])
