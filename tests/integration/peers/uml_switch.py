"""Run a ``uml_switch``, the C original or ours, for the length of a test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from support.deadline import scaled, wait_until_async
from support.require import require_program

PROGRAMS = ("original", "ours")


def program_path(which: str) -> Path:
    """Return the path of the ``original`` (skips where it is not installed) or of ``ours``."""
    if which == "original":
        return require_program("uml_switch")
    return Path(sys.executable).with_name("uml_switch")


def program_command(which: str) -> list[str]:
    """Return the words that start a switch; the original is told to flush its output at each line."""
    path = str(program_path(which))
    return ["stdbuf", "-oL", path] if which == "original" else [path]


class UmlSwitch:
    """A running switch and what it has printed.

    Attributes:
        process: The process; its pid is the switch's.
        stdout: Lines so far, complete ones only, without their ends.
        stderr: The same of standard error.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            asyncio.ensure_future(self._read(process.stdout, self.stdout)),
            asyncio.ensure_future(self._read(process.stderr, self.stderr)),
        ]

    @property
    def pid(self) -> int:
        """The switch's process."""
        return self.process.pid

    async def _read(self, stream: asyncio.StreamReader, lines: list[str]) -> None:
        while line := await stream.readline():
            lines.append(line.decode(errors="backslashreplace").removesuffix("\n"))
            await asyncio.sleep(0)

    async def wait_line(self, text: str, count: int = 1) -> None:
        """Wait until ``count`` lines of stdout and stderr together contain ``text``."""

        def there() -> bool:
            return sum(text in line for line in (*self.stdout, *self.stderr)) >= count

        try:
            await wait_until_async(there, 10, f"{count} lines with {text!r}")
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it printed {self.stdout} and {self.stderr}") from None

    async def wait_ready(self, *sockets: Path) -> None:
        """Wait until it is attached, or has ended, and until ``sockets`` exist in the first case."""

        def ready() -> bool:
            attached = any(" attached to unix socket" in line for line in self.stdout)
            sockets_exist = all(is_socket(path) for path in sockets)
            return (attached and sockets_exist) or self.process.returncode is not None

        await wait_until_async(ready, 15, f"the switch is attached ({self.stdout}, {self.stderr})")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    async def wait(self) -> int:
        """Wait for the end, its last lines included; returns the status, negative for a signal."""
        async with asyncio.timeout(scaled(15)):
            status = await self.process.wait()
            await asyncio.gather(*self._readers)
        return status

    async def end(self) -> None:
        """End it if it still runs, by force if it must be."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGINT)
            try:
                await self.wait()
            except TimeoutError:
                self.process.kill()
        await self.wait()


def is_socket(path: Path) -> bool:
    """Say whether a socket lies at a path."""
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False


def listens(path: Path) -> bool:
    """Say whether somebody listens at an absolute path, without connecting, which a switch would report.

    The socket's file is there an instant earlier.
    """
    # Number, references, protocol, flags (__SO_ACCEPTCON), type, state, inode, path; abstract names are
    # any bytes, line feeds included.
    for line in Path("/proc/net/unix").read_bytes().split(b"\n"):
        words = line.split(maxsplit=7)
        if len(words) == 8 and words[3] == b"00010000" and words[7] == os.fsencode(path):
            return True
    return False


@contextlib.asynccontextmanager
async def uml_switch(
    which: str,
    options: Sequence[str],
    *,
    cwd: Path | None = None,
    stdin: int = asyncio.subprocess.DEVNULL,
    ready: Sequence[Path] = (),
) -> AsyncIterator[UmlSwitch]:
    """Run a switch and end it on the way out.

    Args:
        which: ``original`` or ``ours``.
        options: Its command line.
        cwd: Where it runs.
        stdin: A descriptor for its standard input.
        ready: Sockets that it makes; the block begins when it is attached and they exist, or when it
            has ended by itself.
    """
    process = await asyncio.create_subprocess_exec(
        *program_command(which),
        *options,
        cwd=cwd,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    switch = UmlSwitch(process)
    try:
        await switch.wait_ready(*ready)
        yield switch
    finally:
        await switch.end()
