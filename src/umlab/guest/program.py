"""Programs of the host that make something for us: found, run and ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import IO

from umlab.errors import LabError
from umlab.guest.guard import guarded

#: Where Debian keeps programs that a plain user's PATH leaves out.
_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"
#: Seconds that a program has to clean up after SIGTERM.
_TERM_TIMEOUT = 10.0


def check_programs(packages: Mapping[str, str]) -> None:
    """Refuse what cannot be done here.

    Args:
        packages: The programs that are needed, and the Debian package of each.

    Raises:
        LabError: One is missing; names all packages that are.
    """
    missing = {
        program: package
        for program, package in packages.items()
        if shutil.which(program, path=program_path()) is None
    }
    if missing:
        install = " ".join(dict.fromkeys(missing.values()))
        raise LabError(f"there is no {', '.join(missing)} here; as root: apt-get install {install}")


def run_program(
    command: Sequence[str],
    on_line: Callable[[str], None] = lambda line: None,
    *,
    on_end: Callable[[], None] = lambda: None,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Run a program to its end; blocks while it does.

    Args:
        command: The program and its arguments.
        on_line: Takes what it prints, line by line.
        on_end: Is told when it is ended before its time, which may take a while.
        variables: Of its environment, beside ours.

    Raises:
        LabError: It failed; with the last line that it has printed.
    """
    last = ""
    pipe, output = subprocess.PIPE, subprocess.STDOUT
    with running(command, stdout=pipe, stderr=output, variables=variables) as process:
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").rstrip()
                if line:
                    last = line
                    on_line(line)
        except BaseException:
            on_end()
            raise
        check_status(command[0], process.wait(), last)


def check_status(program: str, status: int, last: str) -> None:
    """Raise LabError where a program has failed; ``last`` is what it has printed last."""
    if status:
        raise LabError(f"{program} failed: {last[:300] or f'status {status}'}")


@contextlib.contextmanager
def running(
    command: Sequence[str],
    *,
    stdin: IO[bytes] | None = None,
    stdout: int,
    stderr: int,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a process group of its own, which has ended after the block, however we end.

    Args:
        command: The program and its arguments.
        stdin: What it reads; nothing unless given.
        stdout: As `subprocess.Popen` takes it,
        stderr: and so is this.
        variables: Of its environment, beside ours.

    Raises:
        LabError: It cannot be run.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "PATH": program_path(), **variables}
    with guarded() as guard:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise LabError(f"cannot run {command[0]}: {error.strerror}") from None
        guard.arm(process.pid)
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdout, process.stderr):
        # Nobody reads on: what is still printed must not hold it up.
        if stream is not None:
            stream.close()
    for number, timeout in ((signal.SIGTERM, _TERM_TIMEOUT), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout)
            return


def program_path() -> str:
    """Return a ``PATH`` that also has the programs which a plain user's leaves out, such as depmod."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), _SYSTEM_PATH])
