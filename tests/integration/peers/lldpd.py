"""Debian's LLDP agent ``lldpd`` in a network namespace (root only); nothing of the host's is used.

Its socket, pid and configuration are in a directory of the test's.  It confines itself to ``/run/lldpd``, in a
file system of its own that nobody else sees.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from integration.peers.namespace import NetworkNamespace
from support.deadline import scaled, wait_until
from support.require import require_program

_ALONE = 'mount -t tmpfs none /run && exec "$@"'


class Lldpd:
    """One agent, on one interface.

    Args:
        folder: A directory with a short path, for this agent alone.
        namespace: Where the interface is.
        interface: Its name.
        name: The system's name.
    """

    def __init__(self, folder: Path, namespace: NetworkNamespace, interface: str, name: str) -> None:
        program = str(require_program("lldpd"))
        self._command = str(require_program("lldpcli"))
        self._namespace = namespace
        self._socket = folder / "socket"
        settings = folder / "settings"
        # Said every second, and held for four.
        settings.write_text(f"configure system hostname {name}\nconfigure lldp tx-interval 1\n")
        words = ("-dd", "-u", str(self._socket), "-p", str(folder / "pid"), "-O", str(settings))
        self.process = subprocess.Popen(
            namespace.words("unshare", "--mount", "sh", "-c", _ALONE, "sh", program, *words, "-I", interface),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def neighbours(self) -> dict[str, str]:
        """Return the neighbours that it knows: system names and identifiers of their ports."""
        shown = json.loads(
            self._namespace.run(self._command, "-u", str(self._socket), "-f", "json0", "show", "neighbors")
        )
        interfaces: list[dict[str, Any]] = shown["lldp"][0].get("interface", [])
        return {
            each["chassis"][0]["name"][0]["value"]: each["port"][0]["id"][0]["value"] for each in interfaces
        }

    def answers(self) -> bool:
        """Tell whether it can be asked."""
        assert self.process.poll() is None, f"lldpd ended with status {self.process.returncode}"
        return self._socket.exists()

    def end(self) -> None:
        """Let it end in order, with a farewell."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(scaled(10))

    def kill(self) -> None:
        """Kill it, its processes and all, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(scaled(10))


@contextlib.contextmanager
def lldpd(folder: Path, namespace: NetworkNamespace, interface: str, name: str) -> Iterator[Lldpd]:
    """Run an agent for the length of a block."""
    folder.mkdir()
    agent = Lldpd(folder, namespace, interface, name)
    try:
        wait_until(agent.answers, 10, "lldpd")
        yield agent
    finally:
        agent.kill()
