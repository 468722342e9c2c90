"""The command line against a real lab: a daemon in the background, a keeper, a kernel."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from integration.peers.fake_guest import FakeGuest, frame, mac
from integration.peers.minimal_guest import MinimalGuest, minimal_guest
from integration.peers.uml_kernel import debian_kernel
from support.deadline import scaled, wait_until
from support.screen_session import ScreenSession
from umlab.client import Client
from umlab.mconsole.discover import discover
from umlab.mconsole.prune import prune

pytestmark = [pytest.mark.integration, pytest.mark.any_user]

BY_HAND_MAC = "02:00:00:00:00:0a"
UMLAB = Path(sys.executable).with_name("umlab")


#: Stops process 1 of a guest, whom no signal stops, and takes its NIC out of the network.
_FREEZE = """mkdir /run/c && mount -t cgroup2 none /run/c && mkdir /run/c/f
echo 1 > /run/c/f/cgroup.procs; echo 1 > /run/c/f/cgroup.freeze
grep -H frozen /run/c/f/cgroup.events; ip link set eth0 down
"""


class Terminal:
    """Runs commands in one user's surroundings."""

    def __init__(self, directory: Path) -> None:
        self.environment = os.environ | {
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
            env=self.environment,
            check=False,
        )
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def records(self, *words: str) -> list[dict[str, Any]]:
        """Run umlab and return its lines of JSON."""
        return [json.loads(line) for line in self.run(*words, "--json").splitlines()]

    def guests(self, lab: str | None, *words: str) -> list[dict[str, Any]]:
        """Return the guests of a lab, or those outside labs, which may be another test's."""
        return [record for record in self.records("guest", "ls", *words) if record["lab"] == lab]


@pytest.fixture
def terminal(short_dir: Path) -> Iterator[Terminal]:
    """Where commands are typed; labs that a test leaves behind are ended."""
    terminal = Terminal(short_dir)
    yield terminal
    for name in ("lan", "ring"):
        # 3: it has ended already, as it should.
        subprocess.run(
            [UMLAB, "switch", "stop", name], env=terminal.environment, capture_output=True, check=False
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


def test_guest_is_managed(terminal: Terminal, short_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    file = short_dir / "ring.yaml"
    file.write_text(
        f"segments: {{core: {{}}}}\nguests: {{left: {{kernel: {debian_kernel()}, nics: [core]}}}}\n"
    )
    terminal.run("switch", "run", "ring", "--file", str(file), "--background")
    wait_until(lambda: terminal.guests("ring")[0]["state"] == "ready", 40, "the guest to boot")

    assert "left" in terminal.run("switch", "show", "ring/core")
    assert "mmapper_init" in terminal.run("guest", "logs", "left")
    answer = terminal.run("guest", "attach", "left", typed="echo $((6 * 7))\n")
    assert "\n42" in answer.replace("\r", "")
    _check_terminals(terminal)
    devices = {
        record["name"]: record["setting"] for record in terminal.records("guest", "device", "ls", "left")
    }
    assert devices["eth0"].startswith("daemon")
    control = short_dir / "umlab/ring/core.ctl"
    assert terminal.run("guest", "device", "set", "left", "eth1", f"daemon,,unix,{control}")
    assert {record["name"] for record in terminal.records("guest", "device", "ls", "left")} >= {"eth1"}
    wait_until(lambda: terminal.guests("ring")[0]["load"], 20, "the guest's kernel to tell its load")
    (left,) = terminal.guests("ring")
    assert {nic["name"] for nic in left["nics"]} >= {"eth0", "eth1"}
    assert terminal.run("guest", "device", "rm", "left", "eth1") == "left: eth1 unplugged\n"
    _check_kernel(terminal)
    assert terminal.run("console", "left", "--", "version").startswith("Linux ")
    (answer,) = map(
        json.loads, terminal.run("console", "left", "--json", "--", "proc", "uptime").splitlines()
    )
    assert (answer["guest"], answer["lab"], answer["ok"]) == ("left", "ring", True)
    assert re.fullmatch(r"\d+\.\d+ \d+\.\d+\n", answer["output"])
    assert terminal.run("console", "left", typed="stop\nversion\ngo\n").startswith("stopped\nLinux ")
    assert "Unknown command" in terminal.run("console", "left", "--", "bogus", status=1)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    with Client("ring") as client:
        processes = {each.pid: each.name for each in client.processes("left")}
    assert (processes[1], processes[2]) == ("init", "kthreadd")
    assert "daemon" in terminal.run("switch", "args", "ring/core")
    assert terminal.run("switch", "stop", "ring") == "ring: stopped\n"
    assert terminal.guests("ring") == []


def test_guest_that_was_started_by_hand_is_seen_until_what_it_left_is_removed(
    terminal: Terminal, short_dir: Path
) -> None:
    terminal.run("switch", "run", "lan", "--background")
    setting = f"daemon,{BY_HAND_MAC},unix,{short_dir}/umlab/lan/lan.ctl"
    with minimal_guest("byhand", f"eth0={setting}") as guest:

        def seen(*words: str) -> dict[str, Any]:
            (record,) = (
                each for each in terminal.guests(None, *words) if each["mconsole"] == str(guest.socket)
            )
            return record

        wait_until(lambda: seen()["release"], 20, "the guest's kernel to tell what it is")
        record = seen()
        assert (record["name"], record["state"]) == ("byhand", "answers")
        assert record["pid"] == guest.process.pid
        assert re.match(r"\d+\.\d+", record["release"])
        assert 0 < record["memory_used"] < record["memory_total"] < 128 << 20
        assert record["uptime"] > 0
        assert record["nics"] == [
            {"name": "eth0", "transport": "daemon", "setting": setting, "port": "lan:1", "mac": BY_HAND_MAC}
        ]
        assert terminal.run("console", str(guest.socket), "--", "version").startswith("Linux ")
        guest.pause()
        try:
            assert seen()["state"] == "silent"
            assert _pruned(guest) == ["listening"]
        finally:
            guest.resume()
        guest.kill()
        # Its kernel does not tell its directory any more.
        assert seen("--uml-dir", str(guest.uml_dir))["state"] == "dead"
        assert _pruned(guest) == [None]
        assert not guest.run_directory.exists()


def _pruned(guest: MinimalGuest) -> list[str | None]:
    return [prune(found) for found in discover([str(guest.uml_dir)])]


def _check_kernel(terminal: Terminal) -> None:
    """Look at a guest whose init is frozen and whose network is down, and leave it as it was."""
    assert "frozen 1" in terminal.run("guest", "exec", "left", "--", "sh", "-c", _FREEZE)
    with Client("ring") as client:
        level = client.mconsole("left", "proc sys/kernel/printk")
        # A 6.1 kernel gives a trace up now and then, and says so.
        assert re.search("Call Trace|aborting stack trace", terminal.run("guest", "stack", "left", "1"))
        assert "Mem-Info" in terminal.run("guest", "sysrq", "left", "m")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: client.sysrq("left", "m"), range(16)))
        assert all("Mem-Info" in answer for answer in answers)
        assert client.mconsole("left", "proc sys/kernel/printk") == level
        assert int(level.split()[0]) < 8

        vitals = client.vitals("left")
        assert (vitals.state, vitals.age is not None and vitals.age < scaled(3)) == ("answers", True)
        assert re.match(r"\d+\.\d+", vitals.release or "")
        assert 0 < (vitals.memory_used or 0) < (vitals.memory_total or 0) < 128 << 20
        assert 0 <= (vitals.cpu or 0) <= 1
        (record,) = terminal.records("top", "ring", "--once")
        (left,) = record["guests"]
        assert left["vitals"]["uptime"] >= (vitals.uptime or 0) > 0
        assert (left["rx_frames"], left["vitals"]["state"]) == (0, "answers")
    terminal.run("guest", "attach", "left", typed="echo 0 > /run/c/f/cgroup.freeze\n")


def _check_terminals(terminal: Terminal) -> None:
    """An editor in a guest, for one viewer that types and a late one that looks; a console of its own."""
    attach = [str(UMLAB), "guest", "attach", "left"]
    client = Client("ring")
    with ScreenSession(attach, terminal.environment, (12, 40)) as writer:
        # Answers of the terminal itself are no keys of the editor's.
        writer.wait_for_line(_is_prompt, "a prompt")
        writer.type("vi /tmp/poem\r")
        writer.wait_for_line(lambda line: "/tmp/poem" in line and line.startswith("-"), "the editor")
        writer.type("iroses are red\x1b")
        writer.wait_for_line(lambda line: line == "roses are red", "what was typed")
        with ScreenSession([*attach, "--read-only"], terminal.environment, (13, 40)) as reader:
            reader.wait_for_line(lambda line: line == "roses are red", "the late viewer's picture")
            writer.type("oviolets too\x1b")
            for each in (reader, writer):
                each.wait_for_line(lambda line: line == "violets too", "the second line")
            screen = client.screen("left", "con1")
            assert (screen.rows, screen.columns) == (12, 40)
            assert list(screen.lines) == writer.lines == reader.lines[:12]
            assert [(each.writers, each.readers) for each in client.consoles("left")] == [(0, 0), (1, 1)]
            reader.type("dd\x1d")
            assert reader.wait() == 0
        writer.type(":q!\r\x1d")
        assert writer.wait() == 0
    wait_until(lambda: list(client.screen("left", "con1").lines)[:1] != ["roses are red"], 20, "vi's end")
    lines = terminal.records("guest", "logs", "left", "--console", "con1", "--since", "10min", "-t")
    assert any("vi /tmp/poem" in record["line"] and record["at"] for record in lines)

    assert "left" in terminal.run("guest", "device", "set", "left", "con4", "pts")
    terminal.run("guest", "attach", "left", typed="setsid sh -c 'exec sh -i <>/dev/tty4 >&0 2>&1' &\n")
    with ScreenSession([*attach, "--console", "con4"], terminal.environment, (12, 40)) as writer:
        writer.wait_for_line(_is_prompt, "a prompt")
        writer.type("echo fourth-$((2 * 2))\r")
        writer.wait_for_line(lambda line: line == "fourth-4", "the shell of the fourth console")
        assert [each.name for each in client.consoles("left")] == ["con0", "con1", "con4"]
        writer.type("exit\r")
        terminal.run("guest", "device", "rm", "left", "con4")
        writer.wait_for("umlab: left con4 has ended")
    assert "con4" in terminal.run("guest", "attach", "left", "--console", "con4", status=1)


def _is_prompt(line: str) -> bool:
    return line.endswith(":~#")
