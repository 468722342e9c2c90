"""Debian's LLDP agent ``lldpd`` in a network namespace (root only); nothing of the host's is used.

All of its files are in ``/run``, which is a file system of its own that nobody else sees.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

from integration.peers.namespace import NetworkNamespace
from support.deadline import scaled, wait_until
from support.require import require_program

_SCRIPT = """
mount -t tmpfs none /run
echo "configure system hostname $1
configure lldp tx-interval $2" >/run/settings
exec "$3" -dd -S "a station" -O /run/settings -I "$4"
"""


class Lldpd:
    """One agent, on one interface.

    Args:
        namespace: Where the interface is.
        interface: Its name.
        name: The system's name.
        interval: Seconds after which it says the same again; it holds for four times as long.
    """

    def __init__(self, namespace: NetworkNamespace, interface: str, name: str, interval: int) -> None:
        program = str(require_program("lldpd"))
        script = ("sh", "-ec", _SCRIPT, "sh")
        self.process = subprocess.Popen(
            namespace.words("unshare", "--mount", *script, name, str(interval), program, interface),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        place = ("nsenter", "--net", "--mount", "--target", str(self.process.pid))
        self._show = (*place, str(require_program("lldpcli")), "-f", "json0", "show")

    def neighbours(self) -> dict[str, str]:
        """Return the neighbours that it knows: system names and identifiers of their ports."""
        output = subprocess.check_output([*self._show, "neighbors"], timeout=scaled(10))
        interfaces: list[dict[str, Any]] = json.loads(output)["lldp"][0].get("interface", [])
        return {
            each["chassis"][0]["name"][0]["value"]: each["port"][0]["id"][0]["value"] for each in interfaces
        }

    def answers(self) -> bool:
        """Tell whether it can be asked."""
        assert self.process.poll() is None, f"lldpd ended with status {self.process.returncode}"
        asked = subprocess.run([*self._show, "configuration"], capture_output=True, timeout=scaled(10))
        return asked.returncode == 0

    def end(self) -> None:
        """Let it end in order, with a farewell."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(scaled(10))

    def kill(self) -> None:
        """Kill it, its processes and all, without a word."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(scaled(10))


@contextlib.contextmanager
def lldpd(namespace: NetworkNamespace, interface: str, name: str, interval: int = 1) -> Iterator[Lldpd]:
    """Run an agent for the length of a block."""
    agent = Lldpd(namespace, interface, name, interval)
    try:
        wait_until(agent.answers, 10, "lldpd")
        yield agent
    finally:
        agent.kill()
