"""Open vSwitch with its userspace datapath in a network namespace (root only); nothing of the host's is used.

Its database, sockets and lock are in a directory of the test's.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

from integration.peers.namespace import NetworkNamespace
from support.deadline import scaled, wait_until
from support.guest_end import GuestEnd
from support.require import require_program
from umlab.transports.tap import open_tap

_SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
_QUIET = ("-vconsole:warn", "-vsyslog:off", "-vfile:off")


class TapEnd(GuestEnd):
    """Who has a tap device open: a frame that is sent comes in at the interface.

    Args:
        fd: The device.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def send(self, frame: bytes) -> None:
        """Send one frame."""
        os.write(self._fd, frame)

    def receive(self) -> bytes:
        """Return the next frame; raises TimeoutError when none comes."""
        if not select.select([self._fd], [], [], scaled(10))[0]:
            raise TimeoutError
        return os.read(self._fd, 70_000)

    def waiting(self) -> list[bytes]:
        """Return the frames that are there already."""
        frames = []
        with contextlib.suppress(BlockingIOError):
            while True:
                frames.append(os.read(self._fd, 70_000))
        return frames

    def close(self) -> None:
        """Close the device, which is gone then."""
        os.close(self._fd)


class OpenVSwitch:
    """One bridge, ``br0``.

    Args:
        folder: An empty directory with a short path.
        namespace: Where its devices are.
    """

    def __init__(self, folder: Path, namespace: NetworkNamespace) -> None:
        self._namespace = namespace
        self._vsctl = str(require_program("ovs-vsctl"))
        self._database = f"unix:{folder / 'db'}"
        database = folder / "conf.db"
        subprocess.run([require_program("ovsdb-tool"), "create", database, _SCHEMA], check=True)
        places = ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR")
        self._environment = os.environ | dict.fromkeys(places, str(folder))
        self._processes: list[subprocess.Popen[bytes]] = []
        server = str(require_program("ovsdb-server"))
        switch = str(require_program("ovs-vswitchd"))
        try:
            unixctl = f"--unixctl={folder / 'db.ctl'}"
            self._start(server, str(database), f"--remote=p{self._database}", unixctl)
            wait_until((folder / "db").exists, 10, "the database's socket")
            self.configure("--no-wait", "init")
            self._start(switch, self._database, "--disable-system", f"--unixctl={folder / 'switch.ctl'}")
            self.configure("add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        except BaseException:
            self.stop()
            raise

    def configure(self, *words: str) -> None:
        """Run ``ovs-vsctl``, which waits until the switch is so."""
        self._namespace.run(self._vsctl, f"--db={self._database}", "--timeout=30", *words)

    def plug(self, name: str, *settings: str) -> int:
        """Make a tap device and a port of it; return the descriptor of the device's other end.

        Args:
            name: Of both.
            settings: Columns of the port, such as ``tag=10``.
        """
        with self._namespace.entered():
            fd = open_tap(name)
        try:
            # Without it the kernel would look for IPv6 neighbours there.
            self._namespace.run("ip", "link", "set", name, "addrgenmode", "none")
            # Its own check of a frame's length allows for one tag of 802.1Q, and none of 802.1ad.
            self._namespace.run("ip", "link", "set", name, "mtu", "1600", "up")
            more = ("--", "set", "port", name, *settings) if settings else ()
            self.configure("add-port", "br0", name, *more)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def stop(self) -> None:
        """End both processes."""
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=scaled(20))

    def _start(self, *words: str) -> None:
        command = self._namespace.words(*words, *_QUIET)
        self._processes.append(
            subprocess.Popen(command, stdin=subprocess.DEVNULL, env=self._environment, start_new_session=True)
        )


@contextlib.contextmanager
def open_vswitch(folder: Path, namespace: NetworkNamespace) -> Iterator[OpenVSwitch]:
    """Run it for the length of a block."""
    switch = OpenVSwitch(folder, namespace)
    try:
        yield switch
    finally:
        switch.stop()
