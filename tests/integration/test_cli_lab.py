"""The command line against a real lab: a daemon in the background, a keeper, a kernel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.peers.fake_guest import FakeGuest, frame, mac
from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled, wait_until

pytestmark = pytest.mark.integration

UMLAB = Path(sys.executable).with_name("umlab")


class Terminal:
    """Runs commands in one user's surroundings."""

    def __init__(self, directory: Path) -> None:
        self._environment = os.environ | {
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_STATE_HOME": str(directory / "state"),
        }

    def run(self, *words: str, typed: str = "", status: int = 0) -> str:
        """Run umlab and return what it prints."""
        done = subprocess.run(
            [UMLAB, *words],
            input=typed,
            capture_output=True,
            text=True,
            timeout=scaled(90),
            env=self._environment,
            check=False,
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def records(self, *words: str) -> list[dict[str, Any]]:
        """Run umlab and return its lines of JSON."""
        return [json.loads(line) for line in self.run(*words, "--json").splitlines()]


@pytest.fixture
def terminal(short_dir: Path) -> Iterator[Terminal]:
    """Where commands are typed; labs that a test leaves behind are ended."""
    terminal = Terminal(short_dir)
    yield terminal
    for name in ("lan", "ring"):
        # 3: it has ended already, as it should.
        subprocess.run(
            [UMLAB, "switch", "stop", name], env=terminal._environment, capture_output=True, check=False
        )


def test_switch_in_the_background_is_managed(terminal: Terminal, short_dir: Path) -> None:
    started = terminal.run("switch", "run", "lan", "--background")
    assert started.startswith("switch lan is up")
    control = short_dir / "umlab/lan/lan.ctl"
    with FakeGuest(control) as one, FakeGuest(control) as two:
        one.attach()
        two.attach()
        sent = frame(mac(2), mac(1))
        one.send(sent)
        assert two.receive() == sent

        (listed,) = terminal.records("switch", "ls")
        assert (listed["ports"], listed["guests"], listed["fdb_entries"]) == (2, 1, 1)
        (shown,) = terminal.records("switch", "show", "lan", "--fdb")
        assert [port["counters"]["rx_frames"] for port in shown["ports"]] == [1, 0]
        assert [port["pid"] for port in shown["ports"]] == [os.getpid()] * 2
        assert [entry["port_no"] for entry in shown["fdb"]] == [1]

        changed = terminal.run("switch", "set", "lan", "hub=on", "ageing_time=100s")
        assert changed == "hub: off -> on\nageing_time: 300s -> 100s\nlan: changed\n"
        (shown,) = terminal.records("switch", "show", "lan")
        assert shown["switch"]["config"]["hub"] is True
        assert len(shown["ports"]) == 2

        # Another daemon takes over what the first one leaves.
        assert "guests and ports wait" in terminal.run("switch", "stop", "lan", "--daemon-only")
        terminal.run("switch", "show", "lan", status=3)
        terminal.run("switch", "run", "lan", "--background")
        one.send(sent)
        assert two.receive() == sent

    kinds = [
        record["event"] for record in terminal.records("events", "lan", "--no-follow", "--from", "oldest")
    ]
    assert "port_detached" in kinds
    assert terminal.run("switch", "stop", "lan") == "lan: stopped\n"
    assert not control.exists()
    terminal.run("switch", "stop", "lan", status=3)
    assert terminal.run("switch", "ls") == "no switch runs\n"


def test_keeper_that_was_left_alone_is_ended(terminal: Terminal, short_dir: Path) -> None:
    terminal.run("switch", "run", "lan", "--background")
    terminal.run("switch", "stop", "lan", "--daemon-only")
    assert terminal.run("switch", "stop", "lan") == "lan: stopped\n"
    assert not (short_dir / "umlab/lan/lan.ctl").exists()


def test_guest_is_managed(terminal: Terminal, short_dir: Path) -> None:
    file = short_dir / "ring.yaml"
    file.write_text(
        f"segments: {{core: {{}}}}\nguests: {{left: {{kernel: {debian_kernel()}, nics: [core]}}}}\n"
    )
    terminal.run("switch", "run", "ring", "--file", str(file), "--background")
    wait_until(lambda: terminal.records("guest", "ls")[0]["state"] == "ready", 40, "the guest to boot")

    assert "left" in terminal.run("switch", "show", "ring/core")
    assert "mmapper_init" in terminal.run("guest", "logs", "left")
    answer = terminal.run("guest", "attach", "left", typed="echo $((6 * 7))\n")
    assert "\n42" in answer.replace("\r", "")
    devices = {
        record["name"]: record["setting"] for record in terminal.records("guest", "device", "ls", "left")
    }
    assert devices["eth0"].startswith("daemon")
    control = short_dir / "umlab/ring/core.ctl"
    assert terminal.run("guest", "device", "set", "left", "eth1", f"daemon,,unix,{control}")
    assert {record["name"] for record in terminal.records("guest", "device", "ls", "left")} >= {"eth1"}
    assert terminal.run("guest", "device", "rm", "left", "eth1") == "left: eth1 unplugged\n"
    # A 6.1 kernel gives a trace up now and then, and says so.
    assert re.search("Call Trace|aborting stack trace", terminal.run("guest", "stack", "left", "1"))
    assert "Mem-Info" in terminal.run("guest", "sysrq", "left", "m")
    assert "daemon" in terminal.run("switch", "args", "ring/core")
    assert terminal.run("switch", "stop", "ring") == "ring: stopped\n"
    assert terminal.run("guest", "ls") == "no guest runs\n"
