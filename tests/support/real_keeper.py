"""A keeper as a process, and shells in the place of the kernels that it starts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from support.deadline import scaled, wait_until, wait_until_async
from support.process import is_gone
from umlab.guest.group import Order
from umlab.keeper.link import KeeperLink, KeptGroup
from umlab.keeper.start import start_keeper
from umlab.transports.socketfile import SocketFile

#: A group that runs until it is ended.
SLEEP = "while :; do sleep 60; done"
#: One with a child that ignores what can be ignored, as its main process does; says when it is so far.
FAMILY = "trap '' TERM; (trap '' TERM; while :; do sleep 60; done) & echo up; while :; do sleep 60; done"


class RealKeeper:
    """A keeper's process.

    Attributes:
        path: Its socket.
        lock: A file that it has open as its lock.
        log: What it said.
        pid: Its process.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / "keeper.sock"
        self.lock = directory / "keeper.lock"
        self.log = directory / "keeper.log"
        self._links: list[KeeperLink] = []
        file = SocketFile(self.path, socket.SOCK_SEQPACKET)
        lock = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        with file.socket as listener, self.log.open("wb") as log:
            start_keeper(listener, str(self.path), lock=lock, log=log.fileno())
        os.close(lock)
        link = self.connect()
        self.pid = link.pid
        link.close()

    def connect(self) -> KeeperLink:
        """Be the next daemon; waits while the keeper sees that the last one is gone."""
        link = KeeperLink.connect(str(self.path))
        self._links.append(link)
        return link

    async def connected(self) -> KeeperLink:
        """Be the next daemon of a keeper that has still to see that the last one went."""
        found: list[KeeperLink] = []

        def connect() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.append(self.connect())
            return bool(found)

        await wait_until_async(connect, 10, "the keeper to serve")
        return found[0]

    def raw(self) -> socket.socket:
        """Connect and say nothing."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(scaled(10))
        sock.connect(str(self.path))
        return sock

    def is_locked(self) -> bool:
        """Say whether somebody holds its lock."""
        with self.lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def descriptors(self) -> int:
        """Return how many descriptors it has."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self) -> dict[int, str]:
        """Return its children's states by pid."""
        found = {}
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2].split()
                if int(fields[1]) == self.pid:
                    found[int(name)] = fields[0].decode()
        return found

    def signal(self, number: int) -> None:
        """Send it a signal, and wait until a stop has come about."""
        os.kill(self.pid, number)
        if number == signal.SIGSTOP:
            stat = Path(f"/proc/{self.pid}/stat")
            wait_until(lambda: stat.read_bytes().rpartition(b")")[2].split()[0] == b"T", 10, "the stop")

    async def end(self) -> None:
        """End it and whatever it holds."""
        for link in self._links:
            link.close()
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
        await wait_until_async(lambda: is_gone(self.pid), 20, "the end of the keeper")


def shell(script: str) -> Order:
    """Order a shell in the place of a kernel."""
    return Order(("0", "0", "/bin/sh", "-c", script), "/", dict(os.environ))


async def start(
    link: KeeperLink,
    name: str = "g",
    script: str = SLEEP,
    on_end: Callable[[int], None] = lambda _: None,
    files: tuple[int, ...] = (),
    output: int | None = None,
) -> KeptGroup:
    """Have a shell started; it says nothing unless ``output`` is given."""
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        return await link.start(name, shell(script), null if output is None else output, files, on_end)
    finally:
        os.close(null)


def pipe() -> tuple[int, int]:
    """Return a pipe whose reading does not wait."""
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def has_ended(reader: int) -> bool:
    """Say whether nobody has a pipe's writing end any more."""
    try:
        return os.read(reader, 1) == b""
    except BlockingIOError:
        return False
