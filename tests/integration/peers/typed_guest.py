"""A guest as a user starts it by hand: the kernel's own command, a root shell on its console.

Nothing of umlab takes part.  The guest leads a process group of its own and is ended with all of it,
because the programs of a guest whose main process alone is killed run on as processes of the host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from support.deadline import scaled
from support.require import require_program

#: What the process 1 of its root has to be: a shell on the console, without echo and prompt.
INIT = """#!/bin/sh
export PATH=/bin HOME=/root TERM=dumb PS1=
mount -t proc proc /proc
mount -t sysfs sysfs /sys
stty -echo
while :; do sh; done
"""


class TypedGuest:
    """A running guest and its console.

    Attributes:
        process: The kernel's main process.
        output: What the console has shown so far.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = b""
        self._commands = 0

    async def type(self, command: str) -> str:
        """Type a command and return what it shows; its status must be 0.

        The first one waits for the boot: what is typed ahead is kept.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._commands += 1
        # The line as it is typed does not match what it shows, should the terminal still echo.
        end = re.compile(rb"<%d ended: (\d+)>" % self._commands)
        start = len(self.output)
        self.process.stdin.write(b'%s; echo "<%d ended: $?>"\n' % (command.encode(), self._commands))
        async with asyncio.timeout(scaled(40)):
            while not (match := end.search(self.output, start)):
                data = await self.process.stdout.read(65536)
                assert data, f"the guest ended: {self.output!r}"
                self.output += data
        shown = self.output[start : match.start()].decode(errors="replace")
        assert match[1] == b"0", f"{command}: {shown}"
        return shown.replace("\r\n", "\n")

    async def wait(self) -> int:
        """Wait for the guest's end by itself and return its exit status."""
        async with asyncio.timeout(scaled(20)):
            # A full pipe would keep it from ending.
            assert self.process.stdout is not None
            self.output += await self.process.stdout.read()
            return await self.process.wait()


@contextlib.asynccontextmanager
async def typed_guest(home: Path, *words: str) -> AsyncIterator[TypedGuest]:
    """Run ``linux WORDS`` in a directory that is the user's home, and end it after the block.

    Args:
        home: Where it runs, and where ``.uml`` is.
        words: The kernel's command line, consoles left aside.
    """
    consoles: Sequence[str] = ("con=null", "con0=fd:0,fd:1", "ssl=null", "quiet")
    process = await asyncio.create_subprocess_exec(
        require_program("linux.uml"),
        *words,
        *consoles,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=home,
        env=os.environ | {"HOME": str(home)},
        start_new_session=True,
    )
    guest = TypedGuest(process)
    try:
        yield guest
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.communicate()
