"""A lab in the background, as a user has one: its daemon can be killed, upgraded and started again."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import time
from types import TracebackType

from integration.peers.uml_kernel import debian_kernel
from support.deadline import deadline, wait_until
from support.process import is_gone
from umlab.api.background import start_in_background, stop_kept
from umlab.client import Client
from umlab.client.terminal import Terminal
from umlab.daemon.order import LabOrder
from umlab.daemon.place import runtime_directory
from umlab.daemon.spec import SwitchSpec, resolve_listen
from umlab.errors import ConnectionLost, LabNotRunning
from umlab.guest.cmdline import BessNic, DaemonNic, GuestSpec
from umlab.switch.model import SwitchConfig

_serial = itertools.count(1)


class BackgroundLab:
    """A lab with one switch of its own name; a context manager that ends it whatever state it is in.

    Args:
        name: The lab and the switch.
        listen: Where the switch listens; its own sockets in the runtime directory unless given.
        guests: What is started with it.
        config: What the switch is told to be.
    """

    def __init__(
        self,
        name: str = "lan",
        listen: tuple[str, ...] = ("daemon", "bess"),
        guests: tuple[GuestSpec, ...] = (),
        config: SwitchConfig | None = None,
    ) -> None:
        self.name = name
        self.runtime = runtime_directory(name)
        places = tuple(resolve_listen(each, name, self.runtime) for each in listen)
        self.order = LabOrder(name, (SwitchSpec(name, config or SwitchConfig(), places),), guests)

    @property
    def client(self) -> Client:
        """A client for one call."""
        return Client(self.name)

    def __enter__(self) -> BackgroundLab:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with Client(self.name) as client:
                keeper = client.lab().keeper_pid
                client.stop()
        except LabNotRunning:
            stop_kept(self.name)
        else:
            wait_until(lambda: is_gone(keeper), 40, "the end of the lab")

    def start(self) -> None:
        """Start the daemon, anew where it was killed; returns when it is ready."""
        start_in_background(self.order)

    def kill_daemon(self) -> None:
        """Kill the daemon without warning and wait until it is gone."""
        pid = self.client.lab().pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: is_gone(pid), 10, "the end of the daemon")

    def upgrade_daemon(self) -> None:
        """Let the daemon execute its program anew and wait until it answers."""
        before = self.client.lab()
        os.kill(before.pid, signal.SIGUSR2)

        def answers() -> bool:
            with contextlib.suppress(LabNotRunning, ConnectionLost):
                return self.client.lab().started_at > before.started_at
            return False

        wait_until(answers, 20, "the upgraded daemon")
        assert self.client.lab().pid == before.pid

    def leave(self) -> None:
        """End the daemon in order and wait until it is gone; the keeper goes on."""
        pid = self.client.lab().pid
        self.client.stop(keep=True)
        wait_until(lambda: is_gone(pid), 20, "the end of the daemon")

    def wait_ready(self) -> None:
        """Wait until the agents of all guests answer."""
        wait_until(
            lambda: all(guest.state == "ready" for guest in self.client.guests()), 40, "the guests to boot"
        )


def daemon_guest(lab: str, umid: str = "left") -> GuestSpec:
    """Describe a guest of the old kind."""
    return GuestSpec(
        umid,
        debian_kernel(),
        nics=(DaemonNic(str(runtime_directory(lab) / f"{lab}.ctl"), f"02:00:00:00:00:{next(_serial):02x}"),),
    )


def bess_guest(lab: str, umid: str = "right") -> GuestSpec:
    """Describe a guest of the new kind."""
    return GuestSpec(
        umid,
        debian_kernel(),
        nics=(BessNic(str(runtime_directory(lab) / f"{lab}.bess"), f"02:00:00:00:00:{next(_serial):02x}"),),
    )


class TypedShell:
    """The shell on a guest's terminal, typed at through the API."""

    def __init__(self, lab: BackgroundLab, guest: str) -> None:
        self._lab = lab
        self._guest = guest

    def ask(self, command: str, seconds: float = 20) -> str:
        """Type a command and return what it prints.

        Args:
            command: One line.
            seconds: Time limit, before scaling.
        """
        number = next(_serial)
        with self._lab.client.terminal(self._guest, "con1") as terminal:
            received, end = b"", deadline(seconds)
            # What is typed before a shell has taken the terminal over is lost.
            while b"~#" not in received:
                received += self._read(terminal, end)
            # The marks that the shell prints are not the ones that the terminal echoes.
            terminal.write(f"echo begin-$(({number}+0)); {command}; echo end-$(({number}+0))\n".encode())
            pattern = re.compile(rb"begin-%d\r\n(.*)end-%d\r\n" % (number, number), re.DOTALL)
            while not (found := pattern.search(received)):
                received += self._read(terminal, end)
            return found[1].replace(b"\r\n", b"\n").decode()

    def _read(self, terminal: Terminal, end: float) -> bytes:
        left = end - time.monotonic()
        assert left > 0, f"{self._guest} says nothing"
        return terminal.read(timeout=left)
