"""Run a ``vde_switch``, the C original or ours, for the length of a test; its clients and its console."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from integration.peers.fake_guest import FakeGuest, attach_request
from integration.peers.uml_switch import UmlSwitch, is_socket
from support.deadline import scaled, wait_until, wait_until_async
from support.require import require_program

PROMPT = b"\nvde$ "


def program_path(which: str) -> Path:
    """Return the path of the ``original`` (skips where it is not installed) or of ``ours``."""
    if which == "original":
        return require_program("vde_switch")
    return Path(sys.executable).with_name("vde_switch")


class VdeClient(FakeGuest):
    """A client with a data socket at a path, as libvdeplug has it.

    Args:
        directory: The switch's.
        name: A file beside that directory.
    """

    def __init__(self, directory: Path, name: str) -> None:
        path = directory.parent / name
        super().__init__(directory / "ctl")
        self.datagrams.close()
        self.datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagrams.bind(str(path))
        self.datagrams.settimeout(scaled(10))
        self.name = os.fsencode(path).ljust(108, b"\0")
        self._path = path

    def ask(self, port_no: int = 0, description: bytes = b"client") -> bytes:
        """Ask for a port and return the name that the reply has for it; empty without a reply."""
        request = attach_request(3, self.name, port_no << 8)[: 12 + 110]
        self.stream.sendall(request + description)
        self.stream.settimeout(scaled(2))
        try:
            reply = self.read_reply()
        except TimeoutError:
            # The original neither answers nor closes.
            return b""
        if reply:
            _, self.switch_name = struct.unpack("=H108s", reply)
            return os.path.basename(self.switch_name.partition(b"\0")[0])
        return b""

    def close(self) -> None:
        """Close both sockets and remove the file."""
        super().close()
        if hasattr(self, "_path"):
            self._path.unlink(missing_ok=True)


class VdeConsole:
    """A client of the console.

    Args:
        path: Its socket.

    Attributes:
        stream: The connection.
        greeting: What it said first.
    """

    def __init__(self, path: Path) -> None:
        self.stream = socket.socket(socket.AF_UNIX)
        self.stream.settimeout(scaled(10))

        def connects() -> bool:
            # Between the file and the accepting there is an instant.
            return self.stream.connect_ex(str(path)) == 0

        try:
            wait_until(connects, 10, "the console accepts")
            self.greeting = self.read()
        except BaseException:
            self.stream.close()
            raise

    def read(self) -> str:
        """Return what comes up to a prompt, which is left out, or up to the end, which is noted."""
        data = b""
        while not data.endswith(PROMPT):
            part = self.stream.recv(65_536)
            if not part:
                return data.decode() + "<end>"
            data += part
        return data.removesuffix(PROMPT).decode(errors="backslashreplace")

    def say(self, command: str | bytes) -> str:
        """Give a command and return the reply."""
        self.stream.sendall(command if isinstance(command, bytes) else f"{command}\n".encode())
        return self.read()

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


@contextlib.asynccontextmanager
async def vde_switch(
    which: str,
    options: Sequence[str],
    *,
    cwd: Path,
    stdin: int = asyncio.subprocess.PIPE,
    ready: Sequence[Path] = (),
) -> AsyncIterator[UmlSwitch]:
    """Run a switch and end it on the way out.

    Args:
        which: ``original`` or ``ours``.
        options: Its command line.
        cwd: Where it runs.
        stdin: A descriptor for its standard input, whose end would be the switch's.
        ready: Sockets that it makes; the block begins when they exist, or when it has ended by itself.
    """
    process = await asyncio.create_subprocess_exec(
        str(program_path(which)),
        *options,
        cwd=cwd,
        env={**os.environ, "HOME": str(cwd)},
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    switch = UmlSwitch(process)

    def started() -> bool:
        return process.returncode is not None or all(map(is_socket, ready))

    try:
        await wait_until_async(started, 15, f"it is there ({switch.stdout}, {switch.stderr})")
        yield switch
    finally:
        await switch.end()
        if process.stdin is not None:
            process.stdin.close()
