"""A network namespace for the length of a block (root only): a place for devices that nobody else sees."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
from collections.abc import Iterator

from support.deadline import scaled, wait_until
from support.require import require_program, unavailable

_CLONE_NEWNET = 0x40000000


class NetworkNamespace:
    """A namespace that lives as long as the process that holds it.

    Args:
        pid: That process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid

    @property
    def is_apart(self) -> bool:
        """Whether the holding process has left our own namespace already."""
        own = os.readlink("/proc/self/ns/net")
        with contextlib.suppress(OSError):
            return os.readlink(f"/proc/{self._pid}/ns/net") != own
        return False

    def words(self, *command: str) -> list[str]:
        """Return what runs a program in it."""
        return ["nsenter", "--net", "--target", str(self._pid), *command]

    def run(self, *command: str) -> str:
        """Run a program in it that must succeed, and return what it prints."""
        done = subprocess.run(
            self.words(*command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=scaled(60),
        )
        assert done.returncode == 0, f"{command}: status {done.returncode}: {done.stdout}"
        return done.stdout

    def mac(self, interface: str) -> str:
        """Return an interface's address."""
        (shown,) = json.loads(self.run("ip", "-json", "link", "show", interface))
        return str(shown["address"])

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let this thread be in it: what it opens belongs there and stays there."""
        with open("/proc/thread-self/ns/net") as home, open(f"/proc/{self._pid}/ns/net") as away:
            _set_namespace(away.fileno())
            try:
                yield
            finally:
                _set_namespace(home.fileno())


@contextlib.contextmanager
def network_namespace() -> Iterator[NetworkNamespace]:
    """Make a namespace with nothing in it but a loopback device that is down."""
    require_program("ip")
    if not os.path.exists("/dev/net/tun"):
        unavailable("/dev/net/tun is missing: modprobe tun")
    holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE)
    try:
        namespace = NetworkNamespace(holder.pid)
        wait_until(lambda: holder.poll() is not None or namespace.is_apart, 10, "a new network namespace")
        if holder.returncode is not None:
            unavailable("this root may not make a network namespace")
        yield namespace
    finally:
        holder.communicate(timeout=scaled(10))


def _set_namespace(fd: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if library.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
