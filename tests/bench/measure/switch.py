"""The switches that are compared, each a process of its own."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .rounds import Unable

#: More than any benchmark attaches; vde_switch has to be told.
PORTS = 1100
START_TIMEOUT = 20


@dataclass(frozen=True)
class Switch:
    """How a switch is run.

    Attributes:
        name: For the tables.
        command: Its command line; ``{}`` is replaced by its directory.
        control: Its control socket in that directory.
        connected: Whether guests connect their sockets, as those that it is meant for do.
        environment: What it needs beside our own.
        inherited: Descriptors of ours that it has as well.
    """

    name: str
    command: tuple[str, ...]
    control: str = "ctl"
    connected: bool = False
    environment: dict[str, str] = field(default_factory=dict)
    inherited: tuple[int, ...] = ()


_OURS = (str(Path(sys.executable).parent / "uml_switch"), "-unix", "{}/ctl")
#: The baseline first.
SWITCHES = (
    Switch("C uml_switch", ("/usr/bin/uml_switch", "-unix", "{}/ctl")),
    Switch(
        "C vde_switch",
        ("/usr/bin/vde_switch", "-s", "{}/vde", "-n", str(PORTS), "-f", os.devnull),
        control="vde/ctl",
        connected=True,
    ),
    Switch("umlab native", _OURS, environment={"UMLAB_ENGINE": "native"}),
    Switch("umlab py", _OURS, environment={"UMLAB_ENGINE": "py"}),
)
#: Ours for those whom ``vde_switch`` is meant for.
OUR_VDE = Switch(
    "umlab native, vde",
    (
        "env",
        "XDG_RUNTIME_DIR={}",
        "XDG_STATE_HOME={}",
        str(Path(sys.executable).with_name("umlab")),
        "switch",
        "run",
        "bench",
        "--listen",
        "vde:{}/vde",
    ),
    control="vde/ctl",
    connected=True,
    environment={"UMLAB_ENGINE": "native"},
)


@dataclass(frozen=True)
class Running:
    """A switch that takes guests."""

    switch: Switch
    pid: int
    control: Path


def separate() -> tuple[set[int], set[int]]:
    """Return the processors of the load and those of the switches, the same where there is only one."""
    every = os.sched_getaffinity(0)
    load = {max(every)}
    return (load, every - load) if len(every) > 1 else (every, every)


@contextlib.contextmanager
def running(switch: Switch, processors: set[int]) -> Iterator[Running]:
    """Run a switch in a directory of its own on some of the processors.

    Raises:
        Unable: It is not installed or does not come up.
    """
    directory = Path(tempfile.mkdtemp(prefix="uml"))
    control = directory / switch.control
    command = [word.format(directory) for word in switch.command]
    own = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, processors)
        # Its input stays open: vde_switch ends with it.
        process = subprocess.Popen(
            command,
            env=os.environ | switch.environment,
            pass_fds=switch.inherited,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        shutil.rmtree(directory)
        raise Unable(f"{command[0]} is not installed") from None
    finally:
        os.sched_setaffinity(0, own)
    try:
        end = time.monotonic() + START_TIMEOUT
        while not _accepts(control):
            if process.poll() is not None or time.monotonic() > end:
                raise Unable("does not come up")
            time.sleep(0.01)
        yield Running(switch, process.pid, control)
    finally:
        process.terminate()
        process.communicate()
        shutil.rmtree(directory)


def raise_descriptor_limit() -> None:
    """Allow this process, and switches that it starts, as many descriptors as it may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _accepts(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(os.fspath(control)) == 0
