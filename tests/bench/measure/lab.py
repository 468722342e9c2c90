"""A lab's daemon in a place of its own, as a user has it, with several switches and no guests."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from umlab.api.background import start_in_background
from umlab.client import Client
from umlab.daemon.order import LabOrder
from umlab.daemon.place import API_SOCKET, runtime_directory
from umlab.daemon.spec import SwitchSpec, resolve_listen
from umlab.switch.model import SwitchConfig

from .bed import Bed, Load
from .switch import Running, Switch, separate


@dataclass(frozen=True)
class Segment:
    """A switch of the lab.

    Attributes:
        name: Its name.
        config: What it is told to be.
        recorder: Bytes of its flight recorder.
    """

    name: str
    config: SwitchConfig = field(default_factory=SwitchConfig)
    recorder: int = 0


@dataclass(frozen=True)
class RunningLab:
    """A daemon that serves.

    Attributes:
        name: The lab's.
        pid: The daemon's process.
        place: A directory that goes with it.
    """

    name: str
    pid: int
    place: Path

    @property
    def api(self) -> Path:
        """The socket of its API."""
        return runtime_directory(self.name) / API_SOCKET

    def control(self, segment: str) -> Path:
        """Return the control socket of a switch."""
        listen = resolve_listen("daemon", segment, runtime_directory(self.name))
        return Path(listen.partition(":")[2].partition(",")[0])

    def client(self) -> Client:
        """Return a client."""
        return Client(self.name)

    @contextlib.contextmanager
    def bed(self, segment: str, what: Load) -> Iterator[Bed]:
        """Attach guests to a switch, the sender at port 1 and receivers from port 2 on, and wait until all
        have left.

        This process goes to a processor of its own meanwhile.
        """
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, separate()[0])
        try:
            with contextlib.ExitStack() as stack:
                yield Bed(Running(Switch(segment, ()), self.pid, self.control(segment)), what, stack)
        finally:
            os.sched_setaffinity(0, own)
        with self.client() as client:
            while client.ports(segment):
                time.sleep(0.01)


@contextlib.contextmanager
def running_lab(
    name: str, segments: Sequence[Segment], processors: set[int] | None = None
) -> Iterator[RunningLab]:
    """Run a daemon, on some of the processors if they are given."""
    place = Path(tempfile.mkdtemp(prefix="uml"))
    for variable in ("XDG_RUNTIME_DIR", "XDG_STATE_HOME"):
        os.environ[variable] = str(place / variable[4].lower())
        os.mkdir(os.environ[variable], 0o700)
    specs = tuple(
        SwitchSpec(
            each.name,
            each.config,
            (resolve_listen("daemon", each.name, runtime_directory(name)),),
            recorder=each.recorder,
        )
        for each in segments
    )
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors or own)
    try:
        start_in_background(LabOrder(name, specs))
    finally:
        os.sched_setaffinity(0, own)
    try:
        with Client(name) as client:
            lab = client.lab()
        yield RunningLab(name, lab.pid, place)
    finally:
        with Client(name) as client:
            client.stop()
        while os.path.exists(f"/proc/{lab.keeper_pid}"):
            time.sleep(0.01)
        shutil.rmtree(place)
